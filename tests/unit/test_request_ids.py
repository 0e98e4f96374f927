"""Identifiers of requests are shown where people need them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mobile_client.cli.classify import classify
from mobile_client.cli.render import header, row, shows_ids
from mobile_client.service import MobileService
from shared.errors import DeadlineExceeded, DimeeError, InvalidInput, from_payload
from shared.ids import new_id
from tests.support.mobile import answered
from tests.support.paths import BUNDLE, free_ports
from tests.support.played_tiers import one, world

FULL = 115


def test_error_of_a_request_names_it_and_the_ledger_has_it(tmp_path: Path) -> None:
    found = world(tmp_path, "gone", "gone", retries=0, fail_over=())

    async def work(mobile: MobileService) -> Any:
        return await one(mobile, policy="edge", mode="edge-max")

    outcome = found.run(work)
    if not isinstance(outcome, DimeeError):
        pytest.skip("the mobile answered in place of the edge")
    assert outcome.request_id in {entry.request_id for entry in found.entries()}


def test_error_keeps_the_request_over_http() -> None:
    error = DeadlineExceeded("late", field="x", limit=1.0, retry_after_s=2.0)
    named = error.of_request("r1")
    assert error.request_id is None
    assert "request_id" not in error.payload()["error"]
    received = from_payload(named.payload(), 504)
    assert isinstance(received, DeadlineExceeded)
    assert received.payload() == named.payload()
    assert copy.copy(received).request_id == "r1"


@pytest.mark.parametrize("value", [7, None, ["r"], {"a": 1}])
def test_identifier_of_another_type_is_left_out(value: object) -> None:
    assert (
        from_payload({"error": {"code": "overloaded", "request_id": value}}, 429).request_id is None
    )


def test_rows_end_with_the_identifier_if_the_terminal_has_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def work(mobile: MobileService) -> Any:
        return await one(mobile, policy="mobile")

    answer = answered(world(tmp_path, "gone", "gone").run(work))
    monkeypatch.setenv("COLUMNS", str(FULL))
    assert header().endswith("  request")
    assert row("a", answer).endswith(f"  {answer.request_id}")
    assert len(row("a", answer)) <= FULL
    monkeypatch.setenv("COLUMNS", "100")
    assert not shows_ids()
    assert answer.request_id not in row("a", answer)


def test_row_of_an_error_ends_with_the_identifier() -> None:
    name = new_id()
    assert row("a", InvalidInput("wrong").of_request(name)).endswith(f"wrong (request {name})")


def test_one_answer_says_how_to_explain_it(tmp_path: Path) -> None:
    names = ("DIMEE_EDGE_URL", "DIMEE_CLOUD_URL", "DIMEE_LEDGER_URL")
    urls = {name: f"http://127.0.0.1:{free_ports(1)[0]}" for name in names}
    environment = {"DIMEE_BUNDLE": str(BUNDLE), "DIMEE_STATE_DIR": str(tmp_path), **urls}
    runner = CliRunner()
    printed = runner.invoke(classify, ["--policy", "mobile", "fine"], env=environment).stdout
    assert printed.splitlines()[-1].startswith("why there: dimee explain ")
    printed = runner.invoke(classify, ["--policy", "mobile", "a", "b"], env=environment).stdout
    assert "dimee explain" not in printed


def test_one_error_says_how_to_see_its_attempts(tmp_path: Path) -> None:
    names = ("DIMEE_EDGE_URL", "DIMEE_CLOUD_URL", "DIMEE_LEDGER_URL")
    urls = {name: f"http://127.0.0.1:{free_ports(1)[0]}" for name in names}
    environment = {
        "DIMEE_BUNDLE": str(BUNDLE), "DIMEE_STATE_DIR": str(tmp_path), "DIMEE_RETRIES": "0",
        "DIMEE_FAIL_OVER": '["cloud"]', **urls,
    }  # fmt: skip
    done = CliRunner().invoke(classify, ["--policy", "cloud", "fine"], env=environment)
    assert done.exit_code == 1
    row, last = done.stdout.splitlines()[1:3]
    assert last.startswith("its attempts: dimee ledger show ")
    assert row.endswith(f"(request {last.split()[-1]})")
