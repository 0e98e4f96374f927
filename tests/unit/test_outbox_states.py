"""An outbox that cannot be written, has reached its limit, or is switched off."""

from __future__ import annotations

import logging
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from mobile_client.gateway.app import create_app
from mobile_client.settings import MobileSettings
from shared.domain import State
from shared.errors import DimeeError, InvalidInput, NotReady
from shared.ledger.client import LedgerClient
from shared.ledger.disk_reserve import RESERVE_BYTES
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.ledger.outbox_table import BUSY_TIMEOUT_S
from shared.settings import NO_LEDGER, BundleSettings
from tests.support.entries import OPEN, caller
from tests.support.paths import BUNDLE
from tests.support.small_disk import SmallDisk, small_disk


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    claimed = Outbox.claim(tmp_path, "mobile")
    yield claimed
    claimed.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    yield from small_disk(tmp_path / "disk", 16)


@contextmanager
def locked(outbox: Outbox) -> Iterator[None]:
    other = sqlite3.connect(outbox._file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def read_only(outbox: Outbox) -> Iterator[None]:
    """Let writes fail as after a forced remount, which Linux does on a disk error only."""
    outbox._table._db.execute("PRAGMA query_only = 1")
    yield
    outbox._table._db.execute("PRAGMA query_only = 0")


def names(outbox: Outbox) -> set[str]:
    return {row[0] for row in outbox.pending(100_000)}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(locked, "another program has locked it"), (read_only, "the file system is read-only")],
)
def test_delivery_goes_on_while_nothing_can_be_written(
    outbox: Outbox,
    fault: Callable[[Outbox], Iterator[None]],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    outbox.record(*(caller(f"a{number}") for number in range(6)))
    with fault(outbox):
        with pytest.raises(NotReady, match=reason):
            outbox.record(caller("refused"))
        assert outbox.report().recording == "refused"
        outbox.mark_delivered([row[:3] for row in outbox.pending(2)])
        (rejected,) = outbox.pending(1)
        outbox.quarantine(*rejected[:3])
        assert names(outbox) == {"a3", "a4", "a5"}, "the same batch is not sent again"
        assert outbox.count_pending() == 3
        outbox.maintain()
        assert outbox.refuses
    outbox.maintain()
    assert outbox.report().recording == "on"
    outbox.record(caller("after"))
    assert names(outbox) == {"a3", "a4", "a5", "after"}
    left = outbox._table._db.execute("SELECT attempt_id, quarantined FROM outbox").fetchall()
    assert sorted(left) == [("a2", 1), ("a3", 0), ("a4", 0), ("a5", 0), ("after", 0)]
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2, "one at the beginning and one at the end"
    assert reason in messages[0]


def test_a_locked_outbox_is_tried_by_the_shipper_only(outbox: Outbox) -> None:
    """The event loop waits for the lock once, for at most `BUSY_TIMEOUT_S`."""
    assert BUSY_TIMEOUT_S <= 0.05
    statements: list[str] = []
    with locked(outbox):
        with pytest.raises(NotReady):
            outbox.record(caller("first"))
        outbox._table._db.set_trace_callback(statements.append)
        for number in range(20):
            with pytest.raises(NotReady, match="end the program that has the file open"):
                outbox.record(caller(f"a{number}"))
            outbox.record_or_buffer(caller(f"b{number}"))
        assert statements == []
    outbox._table._db.set_trace_callback(None)
    outbox.maintain()
    assert names(outbox) == {f"b{number}" for number in range(20)}


def test_outbox_has_a_limit_and_warns_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox.claim(tmp_path, "mobile", max_mb=2.0)
    warned_at = number = 0
    while not outbox.refuses:
        outbox.record(caller(f"a{number}"))
        number += 1
        assert number < 10_000
        if number % 20 == 0:
            outbox.maintain()
        if not warned_at and outbox.report().problem:
            warned_at = number
            assert outbox.report().recording == "on"
    assert 0 < warned_at < number
    with pytest.raises(NotReady, match=r"limit of 2 MB.*DIMEE_OUTBOX_MAX_MB.*DIMEE_LEDGER_URL=off"):
        outbox.record(caller("refused"))
    assert "holds 1." in caplog.records[0].message
    assert outbox.report().used_mb >= 2.0
    assert len(names(outbox)) == number, "what was recorded before is kept"
    outbox.mark_delivered([row[:3] for row in outbox.pending(100_000)])
    outbox.maintain()
    outbox.record(caller("after"))
    assert names(outbox) == {"after"}
    outbox.close()


def test_settings_have_the_limit() -> None:
    assert BundleSettings().outbox_max_mb == 512.0


# the thread that delivers entries runs without a ledger too
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_nothing_is_recorded_without_a_ledger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = MobileSettings(
        state_dir=tmp_path, bundle=BUNDLE, policy="mobile", ledger_url=NO_LEDGER
    )
    with TestClient(create_app(settings)) as http:
        assert "nothing is recorded" in caplog.text
        answer = http.post("/v1/classify", json={"texts": ["a fine film"]})
        assert answer.status_code == 200
        for path in ("/readyz", "/v1/status"):
            assert http.get(path).json()["outbox"]["recording"] == "off"
        assert http.get("/readyz").json()["ledger"] is None
    assert not list(tmp_path.rglob("outbox-*"))
    with pytest.raises(InvalidInput, match="nothing is recorded; give the address"):
        LedgerClient(NO_LEDGER)


FILL = """
import sys
from pathlib import Path
from shared.errors import NotReady
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from tests.support.entries import OPEN, caller
outbox, count = Outbox.claim(Path(sys.argv[1]), "mobile"), 0
try:
    while True:
        outbox.record(caller(f"a{count}", request_id=f"r{count}"))
        count += 1
except NotReady:
    print(count, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("others_fill_the_rest", [False, True])
def test_outbox_of_a_killed_process_is_delivered_on_a_full_disk(
    disk: SmallDisk, repository: Path, others_fill_the_rest: bool
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FILL, str(disk.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        count = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert count > 1_000
    if others_fill_the_rest:
        disk.fill_up()
    outbox = Outbox.claim(disk.folder, "mobile")
    delivered: set[str] = set()
    while rows := outbox.pending(500):
        sent = {row[0] for row in rows}
        assert not sent & delivered, "no batch is sent twice"
        delivered |= sent
        outbox.mark_delivered([row[:3] for row in rows])
        outbox.maintain()
    assert delivered == {f"a{number}" for number in range(count)}
    (disk.folder / "ballast").unlink(missing_ok=True)
    outbox.maintain()
    outbox.record(caller("after"))
    outbox.close()
    after = Outbox.claim(disk.folder, "mobile")
    assert names(after) == {"after"}
    assert (disk.folder / "outbox-0.reserve").stat().st_size == RESERVE_BYTES
    assert (disk.folder / "outbox-0.sqlite").stat().st_size < 4_500_000, "the space is given back"
    after.close()


def test_other_outboxes_are_adopted_when_there_is_room(disk: SmallDisk) -> None:
    first, second = (Outbox.claim(disk.folder, "mobile") for _ in range(2))
    second.record(*(caller(f"b{number}") for number in range(500)))
    first.record(caller("a"))
    second.close()
    first.close()
    ballast = disk.fill_up()
    outbox = Outbox.claim(disk.folder, "mobile")
    assert outbox.refuses
    ballast.unlink()
    outbox.maintain()
    outbox.maintain()
    assert len(names(outbox)) == 501
    outbox.close()


def test_open_attempts_of_an_outbox_that_is_adopted_later_are_ended(disk: SmallDisk) -> None:
    first, second = (Outbox.claim(disk.folder, "mobile") for _ in range(2))
    first.record(caller("a"))
    second.record(OPEN)
    second.close()
    first.close()
    ballast = disk.fill_up()
    outbox = Outbox.claim(disk.folder, "mobile")
    ballast.unlink()
    outbox.maintain()
    outbox.maintain()
    entries = [LedgerEntry.model_validate_json(row[3]) for row in outbox.pending(10)]
    assert {(entry.attempt_id, entry.state, entry.final) for entry in entries} == {
        ("a", State.ANSWERED, True),
        (OPEN.attempt_id, State.ABANDONED, True),
    }
    outbox.close()


def test_entry_that_was_not_written_is_refused_even_if_the_next_one_can_be(
    outbox: Outbox,
) -> None:
    """The shipper's thread may run `maintain` between the failure and the refusal."""

    class Resuming(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.ERROR:
                other.execute("ROLLBACK")
                outbox.maintain()

    handler = Resuming()
    logging.getLogger("shared.ledger.recording_state").addHandler(handler)
    other = sqlite3.connect(outbox._file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(NotReady, match="another program has locked it"):
            outbox.record(caller("a"))
        assert not outbox.refuses
    finally:
        logging.getLogger("shared.ledger.recording_state").removeHandler(handler)
        other.close()
    outbox.record(caller("b"))
    assert names(outbox) == {"b"}


def test_a_read_only_state_folder_is_refused_at_the_start(disk: SmallDisk) -> None:
    outbox = Outbox.claim(disk.folder, "mobile")
    outbox.record(caller("a"))
    outbox.close()

    def remount(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(disk.folder)], check=True)

    remount("ro")
    with pytest.raises(DimeeError, match="choose another with DIMEE_STATE_DIR") as refused:
        Outbox.claim(disk.folder, "mobile")
    assert "Read-only" in refused.value.message
    remount("rw")
    again = Outbox.claim(disk.folder, "mobile")
    assert names(again) == {"a"}
    again.close()


def test_files_of_an_earlier_version_are_shrunk(tmp_path: Path) -> None:
    Outbox.claim(tmp_path, "mobile").close()
    earlier = sqlite3.connect(tmp_path / "outbox-0.sqlite", isolation_level=None)
    earlier.execute("PRAGMA auto_vacuum = NONE")
    earlier.execute("VACUUM")
    earlier.close()
    outbox = Outbox.claim(tmp_path, "mobile")
    for start in range(0, 6_000, 500):
        outbox.record(*(caller(f"a{number}") for number in range(start, start + 500)))
    outbox.mark_delivered([row[:3] for row in outbox.pending(10_000)])
    outbox._table.empty_wal()
    assert (tmp_path / "outbox-0.sqlite").stat().st_size > 4_000_000
    outbox.maintain()
    assert (tmp_path / "outbox-0.sqlite").stat().st_size < 100_000
    outbox.close()


def test_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("shared.ledger.file_lock.fcntl.flock", no_locks)
    with pytest.raises(DimeeError, match=r"has no file locks.*DIMEE_STATE_DIR"):
        Outbox.claim(tmp_path, "mobile")


def test_refusals_are_logged_once(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with locked(outbox):
        for number in range(5):
            with pytest.raises(NotReady):
                outbox.record(caller(f"a{number}"))
            outbox.maintain()
    assert len(caplog.records) == 1
