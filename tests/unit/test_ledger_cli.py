"""The command ``dimee ledger``: exit codes, JSON, and an unreachable ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from shared.domain import Delivery, State
from shared.errors import InvalidInput, LedgerUnavailable, NotFound
from shared.ledger.cli import ledger
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import Summary, Verification
from testbed.processes.processes import Role, Testbed
from tests.support.entries import caller, tier
from tests.support.paths import free_ports

HEADER = ["time", "request", "policy", "tier", "exit", "reason", "conf", "ms", "λ", "answer"]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The address of a ledger process that ends with the test."""
    role = Role("ledger", "shared.ledger.server", free_ports(1)[0])
    with Testbed([role], tmp_path / "ledger", {}) as testbed:
        testbed.start_all()
        yield role.url


def deliver(url: str, *entries: LedgerEntry) -> None:
    body = {"entries": [entry.model_dump(mode="json") for entry in entries]}
    httpx.post(f"{url}/v1/entries", json=body, trust_env=False).raise_for_status()


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(ledger, [*arguments, "--ledger-url", url])


def test_commands_report_an_empty_ledger(url: str) -> None:
    summary = run(url, "summary")
    assert (summary.exit_code, "the ledger is empty" in summary.output) == (0, True)
    assert Summary.model_validate_json(run(url, "summary", "--json").output).requests == 0
    verified = run(url, "verify")
    assert verified.exit_code == 0
    assert verified.output == "0 requests, 0 attempts by callers, 0 by tiers: consistent\n"
    shown = run(url, "show", "r1")
    assert isinstance(shown.exception, NotFound)
    assert shown.exit_code == 1


def test_verify_says_why_callers_have_more_attempts(url: str) -> None:
    unanswered = {"state": State.FAILED, "delivery": Delivery.UNKNOWN, "final": False}
    deliver(url, caller("a0", **unanswered), caller(ordinal=2), tier(ordinal=2))
    verified = run(url, "verify", "--wait", "0")
    assert verified.output == (
        "1 requests, 2 attempts by callers, 1 by tiers (1 were not sent, or got no response): "
        "consistent\n"
    )


def test_commands_have_exit_codes_and_json(url: str) -> None:
    deliver(url, caller(), tier())
    for command in ("summary", "verify"):
        assert run(url, command).exit_code == 0
    first = f"request r1 · trace {caller().trace_id}"
    shown = run(url, "show", "r1").output
    assert shown.startswith(f"{first}\n  1. edge   caller answered")
    summary = Summary.model_validate_json(run(url, "summary", "--json").output)
    assert (summary.requests, summary.cost_lambda) == (1, 3.5)
    rows = json.loads(run(url, "show", "r1", "--json").output)
    assert [LedgerEntry(**row) for row in rows] == [caller(), tier()]
    consistent = run(url, "verify", "--json")
    assert consistent.exit_code == 0
    assert Verification.model_validate_json(consistent.output).consistent

    deliver(url, tier("a2", request_id="r2"))
    inconsistent = run(url, "verify", "--json", "--wait", "0")
    assert inconsistent.exit_code == 1
    (finding,) = Verification.model_validate_json(inconsistent.output).findings
    assert (finding.kind, finding.attempt_id, finding.side) == ("no_caller", "a2", "tier")
    result = run(url, "verify", "--wait", "0")
    assert result.exit_code == 1
    assert "no_caller" in result.output
    assert result.output.endswith("1 findings\n")


def test_verify_counts_findings_beyond_the_shown_ones(url: str) -> None:
    deliver(url, *(caller(f"a{i}", request_id=f"r{i}") for i in range(130)))
    result = run(url, "verify", "--wait", "0")
    assert result.exit_code == 1
    assert result.output.count("no_tier") == 100
    assert "… and 30 more\n" in result.output


@pytest.mark.parametrize("request_id", ["r1?", "r1#", "r1/", "a\nb", "\0", "é", "\udcff", "%72%31"])
def test_show_reports_an_unknown_request(url: str, request_id: str) -> None:
    deliver(url, caller(), tier())
    assert isinstance(run(url, "show", request_id).exception, NotFound)


@pytest.mark.parametrize("arguments", [("summary",), ("show", "r1"), ("verify",)])
def test_unreachable_ledger_is_reported(arguments: tuple[str, ...]) -> None:
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    error = run(nowhere, *arguments).exception
    assert isinstance(error, LedgerUnavailable)
    assert nowhere in error.message
    assert "dimee up" in error.message


@pytest.mark.parametrize("wrong", ["invalid", "http://[", "http://127.0.0.1:99999", "http://a b"])
def test_invalid_address_is_reported(wrong: str) -> None:
    error = run(wrong, "summary").exception
    assert isinstance(error, InvalidInput)
    assert error.message.startswith("ledger-url: ")
    assert "give http://HOST:PORT" in error.message


def test_wait_option_rejects_other_values() -> None:
    assert run("http://127.0.0.1:1", "verify", "--wait", "-1").exit_code == 2


def test_list_prints_a_line_for_each_request_with_its_identifier(url: str) -> None:
    now = time.time()
    failed = {
        "state": State.FAILED,
        "delivery": Delivery.NOT_SENT,
        "error_code": "tier_unreachable",
    }
    unanswered = {"label": None, "confidence": None, "exit_layer": None}
    deliver(
        url,
        caller("a1", request_id="1" * 32, started_at=now - 300),
        caller("a2", request_id="2" * 32, started_at=now - 30, policy="random", label="a\nb"),
        caller("a3", request_id="3" * 32, started_at=now - 60, **failed, **unanswered),
    )
    header, *rows = run(url, "list", "--since", "2m").output.splitlines()
    assert header.split() == HEADER
    assert [row.split()[1] for row in rows] == ["2" * 32, "3" * 32]
    assert rows[0].split()[2:] == ["random", "edge", "3", "route", "75.0%", "10.2", "3.5", "a�b"]
    assert rows[1].endswith("3.5  failed, tier_unreachable")
    chosen = run(url, "list", "--policy", "dimee-fixed", "--tier", "edge", "--reason", "route",
                 "--state", "answered", "--limit", "3", "--json")  # fmt: skip
    (record,) = json.loads(chosen.output)
    assert record == {
        "request_id": "1" * 32, "at": now - 300, "policy": "dimee-fixed", "tier": "edge",
        "exit_layer": 3, "reason": "route", "state": "answered", "label": "positive",
        "confidence": 0.75, "total_ms": 10.25, "cost_lambda": 3.5, "all_cloud_lambda": 12.0,
        "attempts": 1, "error": None, "trace_id": caller().trace_id,
    }  # fmt: skip
    assert "1" * 32 not in run(url, "list", "--until", "6m").output


def test_list_prints_the_date_of_old_requests(url: str) -> None:
    deliver(url, caller(started_at=1_700_000_000))
    _, row = run(url, "list").output.splitlines()
    assert row.startswith("2023-11-1")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--since", "soon"), "soon is not an age; give one such as 30s, 10m, 2h or 7d"),
        (("--since", "0m"), "0m is not an age"),
        (("--since", "1m", "--until", "2m"), "--since must be a larger age than --until"),
        (("--limit", "0"), "0 is not in the range 1<=x<=1000"),
        (("--tier", "moon"), "'moon' is not one of 'mobile', 'edge', 'cloud'"),
        (("--state", "open"), "'open' is not one of 'answered'"),
    ],
)
def test_list_refuses_wrong_options(arguments: tuple[str, ...], sentence: str) -> None:
    refused = run("http://127.0.0.1:9", "list", *arguments)
    assert (refused.exit_code, sentence in refused.output) == (2, True), refused.output


def test_list_says_that_no_request_fits(url: str) -> None:
    assert run(url, "list", "--since", "1m").output.startswith("no request fits; ")
