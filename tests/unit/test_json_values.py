"""Bodies of many JSON values are refused before a parser makes an object of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from mobile_client.gateway.app import MAX_VALUES as CALL_VALUES
from mobile_client.gateway.app import create_app as create_gateway
from mobile_client.settings import MobileSettings
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.app import MAX_BATCH_VALUES, MAX_ENTRIES, EntryBatch
from shared.ledger.server.app import create_app as create_ledger
from shared.ledger.server.settings import LedgerSettings
from shared.serving.body_limit import has_more_values
from shared.tier_server.app import MAX_VALUES as INFER_VALUES
from tests.support.paths import BUNDLE
from tests.support.tiers import create_edge

LIMIT = 10


def values(count: int, value: Any = "a, b") -> bytes:
    return json.dumps([value] * count).encode()


@pytest.mark.parametrize(
    "value",
    [1, None, "", "a, b", [], {}, '",', "\\", '\\",', 'a\\\\"', "ü,", {"name": "value,"}],
)
def test_values_are_counted_outside_strings(value: object) -> None:
    assert not has_more_values(values(LIMIT, value), LIMIT)
    assert has_more_values(values(LIMIT + 1, value), LIMIT)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({f"name {number}": number for number in range(LIMIT + 1)}).encode(),
        json.dumps({"nested": [[1, 2, 3]] * LIMIT}).encode(),
        json.dumps(["a\\", ",\\"] * LIMIT).encode(),
        values(LIMIT + 1).decode().encode("utf-16"),
        b'["' + b'","' * LIMIT + b'"',
    ],
)
def test_other_forms_of_many_values_are_counted(body: bytes) -> None:
    assert has_more_values(body, LIMIT)


def test_invalid_bodies_with_few_commas_are_left_to_the_parser() -> None:
    for body in (b"", b"{", b"\xff\xfe", b'"' * 100, b"\\" * 101):
        assert not has_more_values(body, LIMIT)


def test_services_refuse_more_values_than_any_valid_request_has(tmp_path: Path) -> None:
    gateway = create_gateway(
        MobileSettings(bundle=BUNDLE, state_dir=tmp_path / "mobile", ledger_url="off")
    )
    ledger = create_ledger(LedgerSettings(state_dir=tmp_path / "ledger"))
    edge = create_edge(tmp_path / "edge")
    for app, path, limit in (
        (gateway, "/v1/classify", CALL_VALUES),
        (ledger, "/v1/entries", MAX_BATCH_VALUES),
        (edge, "/v1/infer", INFER_VALUES),
    ):
        many = json.dumps({f"name {number}": 1 for number in range(limit + 1)})
        with TestClient(app) as client:
            refused = client.post(path, content=many, headers={"content-type": "application/json"})
        assert refused.status_code == 413
        assert refused.json()["error"]["limit"] == limit


def test_largest_batch_of_the_ledger_has_few_enough_values() -> None:
    entry = dict.fromkeys(LedgerEntry.model_fields, 1)
    batch = json.dumps({"entries": [entry] * MAX_ENTRIES}).encode()
    assert not has_more_values(batch, MAX_BATCH_VALUES)


def test_largest_call_of_the_gateway_has_few_enough_values() -> None:
    call = json.dumps({"texts": ["a, b"] * 1_000, "pairs": ['c, "d"'] * 1_000}).encode()
    assert not has_more_values(call, CALL_VALUES)


def test_first_wrong_entry_ends_the_check_of_a_batch() -> None:
    batch = json.dumps({"entries": [{"no field": 1}] * MAX_ENTRIES})
    with pytest.raises(ValidationError) as found:
        EntryBatch.model_validate_json(batch)
    assert {error["loc"][:2] for error in found.value.errors()} == {("entries", 0)}
