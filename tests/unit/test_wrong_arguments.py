"""Wrong arguments of the SDK are refused with `InvalidInput`, before a request is made."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mobile_client import MobileClient, RequestOptions
from mobile_client.client import load_settings
from mobile_client.settings import MobileSettings
from shared.errors import DimeeError, InvalidInput
from shared.ledger.outbox import Outbox
from shared.ledger.server.store import LedgerStore
from shared.text import check_inputs
from shared.wire import ClassifyRequest
from tests.support.paths import BUNDLE, free_ports


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client whose servers do not exist; of type Any, since the tests pass wrong types."""
    urls = [f"http://127.0.0.1:{port}" for port in free_ports(3)]
    settings = MobileSettings(
        bundle=BUNDLE, state_dir=tmp_path_factory.mktemp("state"), ledger_url=urls[0],
        edge_url=urls[1], cloud_url=urls[2], policy="mobile",
    )  # fmt: skip
    client = MobileClient(settings)
    yield client
    assert client._mobile.outbox.pending(1) == [], "a request was made"
    client.close(flush_s=0)


@pytest.mark.parametrize(
    ("field", "text"), [("texts.0", b"fine"), ("texts.0", ["fine"]), ("texts.0", None)]
)
def test_wrong_text_is_refused(mobile: Any, field: str, text: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        mobile.classify(text)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "texts"),
    [
        *(("texts", value) for value in ("fine", b"fine", {"a": "b"}, 7, None, {"a"}, iter("a"))),
        ("texts.1", ["a", 1]),
        ("texts.0", [True]),
        ("texts.0", [["a"]]),
    ],
)
def test_wrong_texts_are_refused(mobile: Any, field: str, texts: object) -> None:
    for call in (mobile.classify_many, lambda given: asyncio.run(mobile.aclassify_many(given))):
        with pytest.raises(InvalidInput) as refused:
            call(texts)
        assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "pairs"),
    [
        *(("pairs", value) for value in ("ab", b"ab", {"a": 1, "b": 2}, 7, {"a", "b"}, range(2))),
        ("pairs.0", [1, "b"]),
        ("pairs.1", ["a", None]),
    ],
)
def test_wrong_pairs_are_refused_and_a_string_is_not_split(field: str, pairs: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_inputs(["a", "b"], pairs, task_has_pairs=True, task="mrpc")
    assert refused.value.field == field


@pytest.mark.parametrize("options", [{"mode": "auto"}, "cloud", 7, True, RequestOptions])
def test_wrong_options_are_refused(mobile: Any, options: object) -> None:
    with pytest.raises(InvalidInput, match="must be RequestOptions") as refused:
        mobile.classify("fine", options=options)
    assert refused.value.field == "options"


@pytest.mark.parametrize("policy", [7, True, b"cloud", ["cloud"], {"name": "cloud"}, object])
def test_wrong_policy_is_refused(mobile: Any, policy: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        mobile.classify("fine", options=RequestOptions(policy=policy))
    assert refused.value.field == "policy"


@pytest.mark.parametrize(
    "given",
    [
        {"deadline_ms": True}, {"deadline_ms": float("nan")}, {"deadline_ms": "soon"},
        {"max_cost_lambda": float("inf")}, {"max_cost_lambda": True}, {"retries": True},
        {"latency_price_lambda": float("nan")}, {"threads": 0.5}, {"bundle": 7}, {"mode": 1},
        {"deadline": 5}, {"polcy": "cloud"}, {"fail_over": "edge"}, {"uplink_mbps": float("inf")},
        {"settings": {"deadline_ms": 5}}, {"edge_url": True}, {"port": 0},
        {"deadline_ms": np.True_}, {"bundle": "a\0b"}, {"state_dir": "\ud800"},
        {"token_file": Path("a\0b")}, {"policy": "a\0b"}, {"state_dir": ""}, {"bundle": ""},
        {"deadline_ms": 0.9},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        load_settings(**given)
    (name,) = given
    assert refused.value.field == name
    assert "\n" not in refused.value.message


def test_settings_from_the_environment_are_read_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMEE_DEADLINE_MS", "700")
    monkeypatch.setenv("DIMEE_STATE_DIR", str(Path("state")))
    assert load_settings().deadline_ms == 700.0
    monkeypatch.setenv("DIMEE_DEADLINE_MS", "nan")
    with pytest.raises(InvalidInput, match="DIMEE_DEADLINE_MS"):
        load_settings()


@pytest.mark.parametrize("number", [Decimal(5), Fraction(10, 2), np.float32(5), np.int64(5), 5])
def test_options_hold_numbers_of_any_type_as_floats(number: Any) -> None:
    options = RequestOptions(deadline_ms=number, max_cost_lambda=number)
    assert type(options.deadline_ms) is type(options.max_cost_lambda) is float
    assert options.deadline_ms == options.max_cost_lambda == 5


@pytest.mark.parametrize("number", [np.True_, True, "5", 10**400, Decimal("nan"), 5j])
def test_options_refuse_what_is_no_number(number: Any) -> None:
    for field in ("deadline_ms", "max_cost_lambda"):
        with pytest.raises(InvalidInput) as refused:
            RequestOptions(**{field: number})
        assert refused.value.field == field


@pytest.mark.parametrize("field", ["policy", "mode"])
def test_message_about_nul_names_the_character(field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        RequestOptions(**{field: "a\0b"})
    assert refused.value.message == f"{field}: must not hold the character U+0000"


def test_deadline_has_one_lower_limit() -> None:
    """The SDK, HTTP and the settings have that of the command line."""
    assert RequestOptions(deadline_ms=1).deadline_ms == 1
    with pytest.raises(InvalidInput, match="deadline_ms: input should be greater than or equal"):
        RequestOptions(deadline_ms=0.99)
    with pytest.raises(ValidationError):
        ClassifyRequest(texts=["a"], deadline_ms=0.99)


def test_state_folder_that_is_a_file_is_named_without_an_error_number(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DimeeError, match=r"\(Not a directory\)") as refused:
        Outbox.claim(file / "mobile", "mobile")
    assert "Errno" not in refused.value.message
    with pytest.raises(DimeeError, match=f"{file}: File exists") as refused:
        LedgerStore(f"sqlite:///{file}/ledger.sqlite")
    assert "Errno" not in refused.value.message
