"""Retention removes whole finished requests, and the summary shows what was removed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

from shared.domain import Delivery, State
from shared.ledger.cli import ledger as ledger_command
from shared.ledger.entry import LedgerEntry
from shared.ledger.server import prune as pruning
from shared.ledger.server.app import create_app
from shared.ledger.server.bulk_insert import insert_entries
from shared.ledger.server.prune import prune
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.summary import summarise
from shared.ledger.server.verify import verify
from tests.support.entries import caller, tier

DAY_S = 86_400.0


def put(store: LedgerStore, days_ago: float, *delivered: LedgerEntry) -> None:
    with store.connect() as connection:
        insert_entries(connection, delivered, time.time() - days_ago * DAY_S)


def pair(name: str) -> tuple[LedgerEntry, LedgerEntry]:
    return caller(f"a-{name}", request_id=name), tier(f"a-{name}", request_id=name)


def left(store: LedgerStore) -> set[str]:
    return {entry.request_id for entry in store.entries()}


def test_prune_removes_finished_requests(
    store: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "REQUESTS_PER_TRANSACTION", 3)
    for i in range(10):
        put(store, 100, *pair(f"old{i}"))
    put(store, 10, *pair("young"))
    put(store, 100, pair("late")[0])
    put(store, 10, pair("late")[1])
    put(store, 100, caller("o", request_id="open", state=State.OPEN, delivery=None, final=False))
    put(store, 100, pair("half")[0])
    put(store, 100, tier("t", request_id="alone"))
    put(store, 100, caller("x", request_id="one"), tier("x", request_id="other"))
    put(store, 100, caller("u", request_id="unsent", state=State.FAILED,
                           delivery=Delivery.NOT_SENT))  # fmt: skip
    before = verify(store).findings
    dry_run = prune(store, 90 * DAY_S, dry_run=True)
    assert summarise(store).pruned is None
    assert len(left(store)) == 18
    done = prune(store, 90 * DAY_S)
    assert (done.requests, done.entries, done.kept) == (11, 21, 5)
    assert (dry_run.requests, dry_run.entries, dry_run.kept) == (11, 21, 5)
    assert left(store) == {"young", "late", "open", "half", "alone", "one", "other"}
    assert verify(store).findings == before, "pruning neither causes nor hides findings"
    pruned = summarise(store).pruned
    assert pruned is not None
    assert (pruned.requests, pruned.entries, pruned.cost_lambda) == (11, 21, pytest.approx(38.5))
    again = prune(store, 90 * DAY_S)
    assert (again.requests, again.kept) == (0, 5)
    put(store, 80, *pair("next"))
    prune(store, 60 * DAY_S)
    pruned = summarise(store).pruned
    assert pruned is not None
    assert pruned.requests == 12


def test_prune_measures_age_by_the_time_of_arrival(store: LedgerStore) -> None:
    put(store, 1, caller("a", request_id="r", started_at=0.0), tier("a", request_id="r"))
    assert prune(store, 90 * DAY_S).requests == 0
    assert prune(store, 0.5 * DAY_S).requests == 1


def test_export_import_and_prune_commands_report_their_counts(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    store = LedgerStore(url)
    put(store, 100, *pair("old"))
    put(store, 0, *pair("new"))
    store.close()

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(ledger_command, [*arguments, "--database-url", url])
        assert result.exception is None, result.output
        return result.output

    assert run("export", str(tmp_path / "x.csv")).startswith("4 entries written")
    assert "would be removed" in run("prune", "--older-than", "90d", "--dry-run")
    assert run("prune", "--older-than", "12w").startswith("1 requests (2 entries, 3.5 λ) removed")
    back = run("import", str(tmp_path / "x.csv"))
    assert back.startswith("2 entries imported")
    assert "2 were in the ledger already" in back
    wrong = CliRunner().invoke(ledger_command, ["prune", "--older-than", "soon"])
    assert "soon is not an age; give one such as 90d" in wrong.output
    nowhere = CliRunner().invoke(
        ledger_command,
        ["export", str(tmp_path / "y.csv"), "--database-url", f"sqlite:///{tmp_path / 'no'}"],
    )
    assert "there is no ledger in" in str(nowhere.exception)


def test_service_prunes_by_its_retention_setting(url: str, tmp_path: Path) -> None:
    store = LedgerStore(url)
    put(store, 100, *pair("old"))
    put(store, 1, *pair("new"))
    settings = LedgerSettings(database_url=url, state_dir=tmp_path, ledger_retention_days=90)
    with TestClient(create_app(settings)) as http:
        for _ in range(1_000):  # bounded by requests instead of time
            if http.get("/v1/summary").json()["pruned"]:
                break
        report = http.get("/v1/summary").json()
        assert (report["requests"], report["pruned"]["requests"]) == (1, 1)
        assert http.get("/v1/verify").json()["total_findings"] == 0
    store.close()
