"""W3C trace context without OpenTelemetry: what is valid, what is passed on and recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from shared.ledger.outbox import Outbox
from shared.telemetry.trace_context import read_trace_context, trace_of
from tests.support.mobile import World, answered

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


def read(*headers: tuple[str, str]) -> dict[str, str] | None:
    """Return the headers with which a request continues the trace of one with ``headers``."""
    context = read_trace_context([(name.encode(), value.encode()) for name, value in headers])
    return None if context is None else dict(context.headers)


@pytest.mark.parametrize("flags", ["00", "01", "02", "03", "ff"])
def test_every_flag_is_valid_and_passed_on(flags: str) -> None:
    """Level 2 of the recommendation sets the bit 02 for random trace ids."""
    parent = f"00-{TRACE_ID}-00f067aa0ba902b7-{flags}"
    assert read(("traceparent", parent)) == {"traceparent": parent}


def test_trace_state_is_kept() -> None:
    sent = read(("traceparent", PARENT), ("tracestate", "a=1,b=2"), ("tracestate", "c=3"))
    assert sent == {"traceparent": PARENT, "tracestate": "a=1,b=2,c=3"}


@pytest.mark.parametrize("state", ["x" * 513, "a=\x00", "a=é"])
def test_trace_state_that_no_request_may_carry_is_dropped(state: str) -> None:
    assert read(("traceparent", PARENT), ("tracestate", state)) == {"traceparent": PARENT}


def test_parent_of_a_later_version_may_be_longer() -> None:
    assert read(("traceparent", f"cc{PARENT[2:]}-more")) is not None


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "x",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "0",
        PARENT + "-more",
        "ff" + PARENT[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"cc{PARENT[2:]}-{'m' * 300}",
        f"cc{PARENT[2:]}-é",
    ],
)
def test_invalid_parent_is_no_trace(parent: str) -> None:
    assert read(("traceparent", parent)) is None


def test_two_parents_are_no_trace() -> None:
    assert read(("traceparent", PARENT), ("traceparent", PARENT)) is None
    assert trace_of({"headers": [(b"host", b"a")]}) is None


@pytest.mark.parametrize("policy", ["mobile", "edge", "cloud"])
def test_both_sides_record_the_trace_of_the_caller(policy: str, tmp_path: Path) -> None:
    """Without tracing, the caller's header reaches the tier unchanged."""
    world = World(tmp_path, up=("edge", "cloud"))

    async def classify(mobile: MobileService) -> str | None:
        trace = read_trace_context([(b"traceparent", PARENT.encode())])
        options = RequestOptions(policy)
        (outcome,) = await mobile.classify(["a fine film"], options=options, trace=trace)
        return answered(outcome).trace_id

    assert world.run(classify) == TRACE_ID
    entries = world.entries()
    assert {entry.side for entry in entries} == {"caller", "tier"}
    assert {(entry.trace_id, entry.span_id) for entry in entries} == {(TRACE_ID, None)}


def test_without_a_trace_nothing_is_recorded(tmp_path: Path) -> None:
    world = World(tmp_path, up=("edge",))

    async def classify(mobile: MobileService) -> str | None:
        (outcome,) = await mobile.classify(["a fine film"], options=RequestOptions("edge"))
        return answered(outcome).trace_id

    assert world.run(classify) is None
    assert {entry.trace_id for entry in world.entries()} == {None}
    outbox = Outbox.claim(tmp_path / "edge", "edge")
    rows = [row[3] for row in outbox.pending(100)]
    outbox.close()
    assert rows
    assert not [row for row in rows if "trace" in row], "an earlier ledger refuses the field"
