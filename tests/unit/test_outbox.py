"""The outbox: durable after SIGKILL, idempotent, and bounded."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shared.domain import Delivery, State
from shared.errors import NotReady
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import MAX_BUFFERED, Outbox
from tests.support.entries import OPEN, caller, tier


def read(outbox: Outbox) -> list[LedgerEntry]:
    rows = outbox.pending(1_000)
    return sorted(
        (LedgerEntry.model_validate_json(row[3]) for row in rows),
        key=lambda entry: (entry.attempt_id, entry.side),
    )


def test_end_replaces_the_open_entry_once(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")
    outbox.record(OPEN)
    outbox.record(caller())
    outbox.record(caller(state=State.FAILED), OPEN)
    assert read(outbox) == [caller()]
    outbox.close()


def test_delivered_ends_are_deleted_and_open_entries_are_not_resent(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")
    outbox.record(OPEN)
    outbox.record(tier("a2"))
    outbox.mark_delivered([row[:3] for row in outbox.pending(10)])
    assert outbox.count_pending() == 0
    outbox.record(caller())
    assert read(outbox) == [caller()]
    outbox.close()


def test_entry_changed_during_delivery_is_delivered_again(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")
    outbox.record(OPEN)
    sent = [row[:3] for row in outbox.pending(10)]
    outbox.record(caller())
    outbox.mark_delivered(sent)
    assert read(outbox) == [caller()]
    outbox.close()


CRASH = """
import sys
from pathlib import Path
from shared.ledger.outbox import MAX_BUFFERED, Outbox
from tests.support.entries import OPEN, caller, tier
outbox = Outbox.claim(Path(sys.argv[1]), "mobile")
outbox.record(OPEN)
outbox.record(tier("a2", request_id="r2"))
print("recorded", flush=True)
sys.stdin.read()
"""


def test_recorded_entries_survive_sigkill(tmp_path: Path, repository: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CRASH, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=repository,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "recorded\n"
    beside = Outbox.claim(tmp_path, "mobile")
    assert read(beside) == [], "the outbox of a live process is not adopted"
    beside.close()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    after = Outbox.claim(tmp_path, "mobile")
    abandoned, answered = read(after)
    assert (abandoned.state, abandoned.delivery, abandoned.final) == (
        State.ABANDONED,
        Delivery.UNKNOWN,
        True,
    )
    assert answered == tier("a2", request_id="r2")
    after.close()


def test_entries_of_unused_outboxes_are_adopted(tmp_path: Path) -> None:
    first, second = Outbox.claim(tmp_path, "mobile"), Outbox.claim(tmp_path, "mobile")
    first.record(caller("a1"))
    second.record(caller("a2"))
    first.close()
    second.close()
    after = Outbox.claim(tmp_path, "mobile")
    assert [entry.attempt_id for entry in read(after)] == ["a1", "a2"]
    after.close()


def test_concurrent_threads_can_record(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")

    def work(number: int) -> None:
        for i in range(50):
            outbox.record(caller(f"a{number}-{i}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outbox.count_pending() == 400
    outbox.close()


def test_unwritable_entries_raise_and_ends_are_buffered(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")
    other = sqlite3.connect(tmp_path / "outbox-0.sqlite")
    schema = other.execute("SELECT sql FROM sqlite_master").fetchone()[0]
    other.execute("DROP TABLE outbox")
    with pytest.raises(NotReady, match=r"no such table.*DIMEE_STATE_DIR"):
        outbox.record(caller(), tier())
    outbox.record_or_buffer(caller(), tier())
    other.execute(schema)
    other.close()
    assert read(outbox) == [caller(), tier()], "deliverable from memory"
    outbox.maintain()
    assert [row[2] for row in outbox.pending(10)] == [1, 1], "written to disk as soon as it works"
    assert outbox.report().dropped == 0
    outbox.close()


def test_memory_buffer_is_bounded(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")
    outbox.close()
    outbox._buffered = {(f"a{i}", "caller"): "{}" for i in range(MAX_BUFFERED - 1)}
    outbox.record_or_buffer(caller("last"), caller("more"))
    assert (len(outbox._buffered), outbox.report().dropped) == (MAX_BUFFERED, 1)


def test_text_hashes_are_salted_and_stable(tmp_path: Path) -> None:
    one, other = Outbox.claim(tmp_path / "a", "x"), Outbox.claim(tmp_path / "b", "x")
    assert one.hash_text("fine", None) == one.hash_text("fine", None)
    assert one.hash_text("fine", None) != other.hash_text("fine", None)
    assert one.hash_text("a", "b") != one.hash_text("ab", None)
    assert len(one.hash_text("\ud800", None)) == 32
    salt = one.hash_text("fine", None)
    one.close()
    again = Outbox.claim(tmp_path / "a", "x")
    assert again.hash_text("fine", None) == salt
    again.close()
    other.close()


def test_unusable_directory_error_names_the_setting(tmp_path: Path) -> None:
    from shared.errors import DimeeError

    (tmp_path / "file").write_text("")
    with pytest.raises(DimeeError, match="DIMEE_STATE_DIR"):
        Outbox.claim(tmp_path / "file" / "below", "mobile")


def test_rejected_row_is_quarantined(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")
    outbox.record(caller("a1"), caller("a2"))
    outbox.quarantine("a1", "caller", 1)
    assert [entry.attempt_id for entry in read(outbox)] == ["a2"]
    assert outbox.count_pending() == 1
    outbox.close()
    after = Outbox.claim(tmp_path, "mobile")
    assert [entry.attempt_id for entry in read(after)] == ["a2"]
    after.close()


def test_row_changed_during_delivery_is_delivered_once_more(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")
    outbox.record(OPEN, tier())
    sent = [row[:3] for row in outbox.pending(10)]
    outbox.record(caller())
    outbox.mark_delivered(sent)
    assert read(outbox) == [caller()], "the tier's side did not change"
    outbox.mark_delivered([row[:3] for row in outbox.pending(10)])
    outbox.record(OPEN)
    assert len(outbox.pending(10)) == 1, (
        "a deleted row may be recorded again; the ledger ignores it"
    )
    outbox.close()


def test_closed_outbox_rejects_entries(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")
    outbox.close()
    with pytest.raises(NotReady, match="closed"):
        outbox.record(caller())


def test_unserialisable_entry_is_dropped_without_logging_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")
    outbox.record_or_buffer(caller().model_copy(update={"label": "secret\ud800"}))
    assert (outbox.report().dropped, outbox.count_pending()) == (1, 0)
    assert "1 entries could not be written" in caplog.text
    assert "secret" not in caplog.text
    outbox.close()


@pytest.mark.parametrize("content", [b"", b"no database" * 500], ids=["empty", "corrupt"])
def test_unreadable_outbox_of_another_process_is_skipped(tmp_path: Path, content: bytes) -> None:
    """A process that was killed before it created the table leaves an empty file."""
    Outbox.claim(tmp_path, "mobile").close()
    (tmp_path / "outbox-1.sqlite").write_bytes(content)
    with_leftovers = Outbox.claim(tmp_path, "mobile")
    with_leftovers.record(caller())
    assert read(with_leftovers) == [caller()]
    with_leftovers.close()


def test_open_entry_of_another_version_does_not_prevent_start(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "mobile")
    outbox.record(OPEN, caller("a2", state=State.OPEN, delivery=None, final=False))
    outbox.close()
    other = sqlite3.connect(tmp_path / "outbox-0.sqlite")
    other.execute("UPDATE outbox SET body = '{\"new\": 1}' WHERE attempt_id = 'a1'")
    other.commit()
    other.close()
    after = Outbox.claim(tmp_path, "mobile")
    (abandoned,) = read(after)
    assert (abandoned.attempt_id, abandoned.state) == ("a2", State.ABANDONED)
    after.close()
    Outbox.claim(tmp_path, "mobile").close()


def test_abandoned_tier_entry_has_no_caller_fields(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path, "edge")
    outbox.record(tier(state=State.OPEN))
    outbox.close()
    after = Outbox.claim(tmp_path, "edge")
    (ended,) = read(after)
    assert (ended.state, ended.error_code) == (State.ABANDONED, "process_died")
    assert (ended.delivery, ended.final) == (None, False)
    after.close()
