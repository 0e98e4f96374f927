"""State files that are removed, replaced, emptied or damaged by another program."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import DimeeError, LedgerUnavailable, NotReady
from shared.ledger import outbox_table
from shared.ledger.outbox import Outbox
from shared.ledger.server.store import LedgerStore
from tests.support.entries import caller


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def replace_folder(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.mkdir()


def remove_log(folder: Path) -> None:
    next(folder.glob("*-wal")).unlink()


FAULTS = pytest.mark.parametrize("fault", [remove_folder, replace_folder, remove_log])


@FAULTS
def test_outbox_whose_files_are_gone_refuses_and_still_delivers(
    tmp_path: Path, fault: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_table, "FILE_CHECK_INTERVAL_S", 0.0)
    outbox = Outbox.claim(tmp_path / "state", "mobile")
    outbox.record(caller("before"))
    fault(tmp_path / "state")
    for _ in range(2):
        with pytest.raises(NotReady, match="removed or replaced"):
            outbox.record(caller("after"))
        outbox.maintain()  # does not record again
    assert outbox.report().recording == "refused"
    assert [row[0] for row in outbox.pending(10)] == ["before"]
    outbox.close()


def test_outbox_looks_for_its_files_at_intervals_and_delivers_what_it_recorded(
    tmp_path: Path,
) -> None:
    """A check costs two system calls; a busy tier records more often than it checks."""
    outbox = Outbox.claim(tmp_path / "state", "mobile")
    remove_folder(tmp_path / "state")
    recorded: list[str] = []

    def record_for(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            name = f"a{len(recorded)}"
            outbox.record(caller(name))
            recorded.append(name)

    with pytest.raises(NotReady, match="removed or replaced"):
        record_for(60)
    assert [row[0] for row in outbox.pending(len(recorded) + 1)] == recorded
    outbox.close()


@FAULTS
def test_ledger_whose_files_are_gone_acknowledges_nothing(
    tmp_path: Path, fault: Callable[[Path], None]
) -> None:
    folder = tmp_path / "state"
    url = f"sqlite:///{folder / 'ledger.sqlite'}"
    store = LedgerStore(url)
    store.upsert([caller("before")])
    fault(folder)
    for attempt in (lambda: store.upsert([caller("after")]), store.ping):
        with pytest.raises(LedgerUnavailable, match=r"removed or replaced.*restart"):
            attempt()
    store.close()
    again = LedgerStore(url)
    assert again.upsert([caller("after")]).stored == 1
    again.close()


def test_rows_in_the_log_of_an_emptied_file_are_kept(tmp_path: Path) -> None:
    outbox = Outbox.claim(tmp_path / "live", "mobile")
    outbox.record(caller("a1"))
    shutil.copytree(tmp_path / "live", tmp_path / "killed")
    outbox.close()
    os.truncate(tmp_path / "killed" / "outbox-0.sqlite", 0)
    again = Outbox.claim(tmp_path / "killed", "mobile")
    assert [row[0] for row in again.pending(10)] == ["a1"]
    again.close()


def test_damaged_outbox_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "outbox-0.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(DimeeError, match=r"not a database.*\.recover"):
        Outbox.claim(tmp_path, "mobile")


def test_damaged_database_of_the_ledger_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerUnavailable, match=r"not a database.*\.recover"):
        LedgerStore(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
