"""Delivery to a ledger process: at least once, across its restarts, and past a rejected row."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from shared.credentials import Credentials
from shared.errors import BadRequest, BundleMismatch, DimeeError, HeadTooLarge, RequestTimeout
from shared.ledger.cli import ledger as ledger_command
from shared.ledger.client import LedgerClient
from shared.ledger.outbox import Outbox
from shared.ledger.shipper import Shipper
from shared.serving.tokens import new_token
from testbed.processes.processes import Role, Testbed
from tests.support.entries import caller, tier
from tests.support.paths import free_ports


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Testbed]:
    role = Role("ledger", "shared.ledger.server", free_ports(1)[0])
    with Testbed([role], tmp_path / "state", {}) as testbed:
        testbed.start_all()
        yield testbed


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    claimed = Outbox.claim(tmp_path / "outbox", "mobile")
    yield claimed
    claimed.close()


def test_shipper_delivers_in_the_background(running: Testbed, outbox: Outbox) -> None:
    shipper = Shipper(outbox, running.roles["ledger"].url, interval_s=0.0)
    shipper.start()
    outbox.record(caller(), tier())
    assert shipper.flush(10)
    client = LedgerClient(running.roles["ledger"].url)
    assert client.request_entries("r1") == [caller(), tier()]
    assert client.verify().consistent
    shipper.close(1)


def test_error_while_the_shipper_waits_for_the_ledger_does_not_end_it(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed delivery it waits, and keeps the outbox in order meanwhile."""
    deliveries, failures = threading.Semaphore(0), []

    def maintain() -> None:
        if failures:
            raise failures.pop()

    def deliver(shipper: Shipper, timeout_s: float) -> bool:
        failures.append(RuntimeError("unexpected"))  # of the next wait
        deliveries.release()
        return False

    monkeypatch.setattr(outbox, "maintain", maintain)
    monkeypatch.setattr(Shipper, "_deliver_once", deliver)
    monkeypatch.setattr("shared.ledger.shipper.CHECKPOINT_INTERVAL_S", 0.01)
    shipper = Shipper(outbox, "http://127.0.0.1:9", interval_s=0.0, pause=lambda seconds: None)
    shipper.start()
    for _ in range(3):
        assert deliveries.acquire(timeout=30)
    shipper.close(0)
    assert not shipper._thread.is_alive()
    failures.clear()


def test_restart_of_the_ledger_loses_and_doubles_nothing(running: Testbed, outbox: Outbox) -> None:
    shipper = Shipper(outbox, running.roles["ledger"].url)
    outbox.record(*(caller(f"a{i}", request_id=f"r{i}") for i in range(700)))
    rows = outbox.pending(100)
    assert shipper._send(rows, 10)
    running.kill("ledger")
    assert not shipper.flush(0.5)
    assert outbox.count_pending() == 600
    running.start("ledger")
    running.wait_ready("ledger")
    outbox.record(caller("a0", request_id="r0"))
    assert shipper.flush(20)
    report = LedgerClient(running.roles["ledger"].url).verify()
    assert (report.requests, report.caller_rows) == (700, 700)
    assert report.total_findings == 700, "the tiers recorded no entries"
    shipper.close(1)


def test_rejected_row_does_not_block_the_others(
    running: Testbed, outbox: Outbox, tmp_path: Path
) -> None:
    outbox.record(*(caller(f"a{i}", request_id=f"r{i}") for i in range(9)))
    other = sqlite3.connect(tmp_path / "outbox" / "outbox-0.sqlite")
    other.execute("UPDATE outbox SET body = '{\"unknown_field\": 1}' WHERE attempt_id = 'a4'")
    other.commit()
    shipper = Shipper(outbox, running.roles["ledger"].url)
    assert shipper.flush(20)
    assert LedgerClient(running.roles["ledger"].url).verify().caller_rows == 8
    remaining = other.execute("SELECT attempt_id FROM outbox").fetchall()
    assert remaining == [("a4",)]
    other.close()
    report = shipper.undelivered()
    assert report is not None
    assert (report.undelivered, report.rejected) == (0, 1)
    assert report.sentence().startswith("1 ledger entry rejected: http://127.0.0.1:")
    shipper.close(1)
    # a later process reports it too
    counted = threading.Event()
    later = Shipper(outbox, running.roles["ledger"].url, pause=lambda _: counted.set())
    later.start()
    assert counted.wait(60)
    report = later.undelivered()
    assert report is not None
    assert report.rejected == 1
    later.close(1)


@pytest.mark.parametrize("kind", [BadRequest, RequestTimeout, BundleMismatch, HeadTooLarge])
def test_refusal_of_a_message_rejects_no_entry(outbox: Outbox, kind: type[DimeeError]) -> None:
    """Such as one that arrived too slowly over a poor link."""
    shipper = Shipper(outbox, "http://ledger")
    answer = httpx.MockTransport(lambda _: httpx.Response(kind.status, json=kind("x").payload()))
    shipper._http = httpx.Client(transport=answer, base_url="http://ledger")
    outbox.record(caller())
    assert not shipper.flush(0.1)
    assert outbox.count_pending() == 1
    shipper.close(0)


def test_ledger_commands_show_delivered_entries(running: Testbed, outbox: Outbox) -> None:
    url = ["--ledger-url", running.roles["ledger"].url]
    runner = CliRunner()
    assert "the ledger is empty" in runner.invoke(ledger_command, ["summary", *url]).output
    shipper = Shipper(outbox, running.roles["ledger"].url)
    outbox.record(caller(), tier())
    assert shipper.flush(10)
    summary = runner.invoke(ledger_command, ["summary", *url])
    assert "requests 1   answered 1" in summary.output
    assert max(map(len, summary.output.splitlines())) <= 100
    output = runner.invoke(ledger_command, ["show", "r1", *url]).output
    assert "route by dimee-fixed (moderate)" in output
    assert "positive at exit 3, 75.0%" in output
    clean = runner.invoke(ledger_command, ["verify", *url])
    assert (clean.exit_code, clean.output.strip().endswith("consistent")) == (0, True)
    outbox.record(caller("a9", request_id="r9"))
    assert shipper.flush(10)
    dirty = runner.invoke(ledger_command, ["verify", "--wait", "0", *url])
    assert dirty.exit_code == 1
    assert "no_tier" in dirty.output
    assert "a9" in dirty.output
    missing = runner.invoke(ledger_command, ["show", "none", *url])
    assert "no such request" in str(missing.exception)
    shipper.close(1)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"not json", 422),
        (b'{"entries": [{"attempt_id": "\\ud800"}]}', 422),
        (b'{"rows": []}', 422),
        (b'{"entries": 3}', 422),
        (b'{"entries": []}', 200),
        (b" " * 9_000_000, 413),
    ],
    ids=["text", "surrogate", "field", "type", "empty", "large"],
)
def test_ledger_rejects_invalid_batches(content: bytes, status: int, running: Testbed) -> None:
    import httpx

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    url = running.roles["ledger"].url + "/v1/entries"
    headers = {"content-type": "application/json"}
    for body in (content, chunks()):
        try:
            answer = httpx.post(url, content=body, headers=headers, trust_env=False, timeout=30)
        except (httpx.WriteError, httpx.ReadError):
            continue  # refused before all of it was sent
        assert answer.status_code == status
        if status != 200:
            error = answer.json()["error"]
            assert error["code"]
            assert "unknown_field" not in error["message"]


def test_rejected_token_is_logged_once_and_loses_nothing(
    tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    known, own = tmp_path / "tokens.jsonl", tmp_path / "token"
    own.write_text(new_token(known, "mobile-1", ["infer"])[0])
    role = Role("ledger", "shared.ledger.server", free_ports(1)[0])
    with Testbed([role], tmp_path / "state", {"DIMEE_TOKENS": str(known)}) as testbed:
        testbed.start_all()
        shipper = Shipper(outbox, role.url, credentials=Credentials(token_file=own))
        outbox.record(caller(), tier())
        assert not any(shipper.flush(1) for _ in range(3)), "403: the scope is missing"
        own.write_text("dimee_unknown")
        assert not any(shipper.flush(1) for _ in range(3)), "401"
        assert outbox.count_pending() == 2
        messages = [record.message for record in caplog.records]
        assert [("403" in one, "401" in one) for one in messages] == [(True, False), (False, True)]
        own.write_text(new_token(known, "mobile-1", ["ledger:write"])[0])
        assert shipper.flush(10)
        assert caplog.records[-1].message.startswith("the ledger accepts this process again")
        shipper.close(1)
    assert own.read_text() not in caplog.text


def test_entries_of_a_process_that_dies_later_are_taken_over(
    running: Testbed, outbox: Outbox, tmp_path: Path
) -> None:
    """The successor of a replica may run on another machine; a replica of this one delivers."""
    shipper = Shipper(outbox, running.roles["ledger"].url, interval_s=0.0, adoption_interval_s=0.05)
    shipper.start()
    code = (
        "import os, sys; from pathlib import Path; from shared.ledger.outbox import Outbox;"
        "from tests.support.entries import tier;"
        "Outbox.claim(Path(sys.argv[1]), 'mobile').record(tier()); os._exit(9)"
    )
    folder = str(tmp_path / "outbox")
    assert subprocess.run([sys.executable, "-c", code, folder]).returncode == 9
    client = LedgerClient(running.roles["ledger"].url)
    until = time.monotonic() + 60
    while not client.verify().tier_rows and time.monotonic() < until:
        time.sleep(0.05)
    assert client.request_entries("r1") == [tier()]
    shipper.close(1)
