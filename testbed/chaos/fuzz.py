"""Malformed requests drawn by hypothesis and schemathesis, and the check of the responses."""

from __future__ import annotations

import itertools
import json
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema

from shared.inference.codec import encode

HANG_S = 10.0
"""A response that takes longer counts as a hang."""
EXPECTED_5XX = (503, 504)

Headers = dict[str, str]
Post = Callable[[str, bytes, Headers], tuple[int, bytes]]
"""Function that posts a body with headers to a path and returns status and body."""
CallCase = Callable[["Case[Any]"], tuple[int, bytes]]

any_text = st.text(st.characters(exclude_categories=()), max_size=400)
"""Texts of any characters, including NUL, lone surrogates and control characters."""
texts = st.one_of(
    any_text,
    st.builds(str.__mul__, st.text(min_size=1, max_size=9), st.integers(1, 4000)),
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=8,
)


@dataclass
class FuzzResult:
    """Number of cases, their statuses, and a sentence for each response that is not allowed."""

    cases: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def check(self, name: str, send: Callable[[], tuple[int, bytes]]) -> None:
        """Send one case and check its response."""
        began = time.perf_counter()
        status, body = send()
        duration_s = time.perf_counter() - began
        self.cases += 1
        self.by_status[status] += 1
        self.slowest_s = max(self.slowest_s, duration_s)
        if status >= 500 and status not in EXPECTED_5XX:
            self.failures.append(f"{name}: status {status}: {body[:200]!r}")
        elif duration_s > HANG_S:
            self.failures.append(f"{name}: took {duration_s:.1f} s")
        elif status >= 400 and not _has_message(body):
            self.failures.append(f"{name}: status {status} without a message: {body[:200]!r}")


def _has_message(body: bytes) -> bool:
    try:
        error = json.loads(body)["error"]
        return bool(error if isinstance(error, str) else error["message"])
    except (ValueError, LookupError, TypeError):
        return False


def _run_examples(
    strategy: st.SearchStrategy[Any], count: int, seed: int, use: Callable[[Any], None]
) -> None:
    """Call ``use`` with ``count`` examples, the same ones for the same seed."""

    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(drawn: Any) -> None:
        use(drawn)

    run()


def fuzz_schema(
    schema: BaseSchema, call: CallCase, count: int, seed: int, result: FuzzResult
) -> None:
    """Send ``count`` cases over all operations of an OpenAPI document, half of them invalid."""
    operations = [
        operation.ok() for operation in schema.get_all_operations() if isinstance(operation, Ok)
    ]
    each = max(1, count // (2 * len(operations)))
    for operation in operations:
        for mode in GenerationMode:

            def use(case: Case[Any]) -> None:
                result.check(f"{case.method} {case.formatted_path}", lambda: call(case))

            # An operation without parameters has no invalid requests.
            with suppress(Unsatisfiable):
                _run_examples(operation.as_strategy(mode), each, seed, use)


def _attempt_ids(seed: int) -> st.SearchStrategy[str]:
    """Return a strategy of different identifiers, because a tier refuses a repeated attempt."""
    numbers = itertools.count()
    return st.builds(lambda: f"fuzz-{seed}-{next(numbers)}")


def fuzz_texts(post: Post, path: str, count: int, seed: int, result: FuzzResult) -> None:
    """Send texts, pairs and junk in the fields of ``path``, and bytes that are not JSON."""
    many = path.endswith("classify")
    names = ["texts", "pairs", "policy", "deadline_ms"] if many else [
        "text", "pair", "request_id", "attempt_id", "deadline_ms", "alpha", "ordinal",
    ]  # fmt: skip
    valid: dict[str, st.SearchStrategy[Any]] = (
        {"texts": st.lists(texts, max_size=3), "pairs": st.none() | st.lists(texts, max_size=3)}
        if many
        else {"text": texts, "pair": st.none() | texts,
              "request_id": st.uuids().map(str), "attempt_id": _attempt_ids(seed)}
    )  # fmt: skip
    bodies = st.one_of(
        st.fixed_dictionaries(valid),
        st.fixed_dictionaries(
            valid, optional={name: any_json for name in names if name not in valid}
        ),
        st.dictionaries(st.sampled_from(names), any_json),
        any_json,
    ).map(lambda body: json.dumps(body).encode())
    anything = st.one_of(
        bodies, bodies, bodies, bodies.flatmap(_corrupted), st.binary(max_size=300)
    )

    def use(body: bytes) -> None:
        headers = {"content-type": "application/json"}
        result.check(f"{path} {body[:80]!r}", lambda: post(path, body, headers))

    _run_examples(anything, count, seed, use)


def _corrupted(body: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy that truncates a body, or changes one of its bytes."""
    positions = st.integers(0, max(0, len(body) - 1))
    changed = st.builds(
        lambda at, byte: body[:at] + bytes([byte]) + body[at + 1 :], positions, st.integers(0, 255)
    )
    return st.one_of(positions.map(lambda at: body[:at]), changed)


def fuzz_tensors(
    post: Post, bundle_id: str, hidden: int, count: int, seed: int, result: FuzzResult
) -> None:
    """Send hidden states to ``/v1/resume``: valid, extreme, damaged, and with wrong headers."""

    def hidden_state(number: int, tokens: int, layer: int, codec: Any, scale: float) -> bytes:
        values = np.random.default_rng(number).normal(0, scale, (tokens, hidden))
        return encode(np.clip(values, -6e4, 6e4).astype(np.float32), layer, bundle_id, codec)

    states = st.builds(
        hidden_state,
        st.integers(0, 2**32),
        st.sampled_from((1, 2, 7, 33, 256, 300)),
        st.integers(-1, 8),
        st.sampled_from(("int8", "fp16")),
        st.sampled_from((0.0, 1e-7, 1.0, 5e4)),
    )
    wrong_headers = st.builds(
        lambda header, data: struct.pack("<Q", len(header)) + header + data,
        any_json.map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=64),
    )
    bodies = st.one_of(
        states, states, states.flatmap(_corrupted), wrong_headers, st.binary(max_size=300)
    )
    word = st.one_of(st.uuids().map(str), st.text(st.characters(max_codepoint=126), max_size=30))
    attempt_headers = st.fixed_dictionaries(
        {"dimee-request-id": st.uuids().map(str), "dimee-attempt-id": _attempt_ids(seed)},
        optional={
            "dimee-ordinal": word | st.just("2"),
            "dimee-deadline-ms": word | st.sampled_from(("0.001", "1000", "nan", "1e99")),
            "dimee-alpha": word | st.just("0.9"),
            "dimee-text-hash": word,
            "dimee-text-chars": word | st.just("12"),
        },
    )

    def use(drawn: tuple[bytes, Headers]) -> None:
        body, headers = drawn
        printable = {name: "".join(c for c in value if c.isprintable()).strip()
                 for name, value in headers.items()}  # fmt: skip
        printable["content-type"] = "application/octet-stream"
        result.check(f"/v1/resume {body[:60]!r}", lambda: post("/v1/resume", body, printable))

    _run_examples(st.tuples(bodies, attempt_headers), count, seed, use)
