"""Changed, replaced and missing files; files that cannot be written."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.errors import InvalidInput
from shared.files import ChangeDetector, create_once, prepare_output
from shared.ledger.outbox import Outbox


def test_change_is_reported_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a")
    detector = ChangeDetector(file)
    assert not detector.changed()
    file.write_text("longer")
    assert detector.differs()
    assert detector.changed()
    assert not detector.differs()
    assert not detector.changed()


def test_replaced_file_of_equal_size_has_changed(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("a")
    other.write_text("b")
    detector = ChangeDetector(file)
    other.replace(file)
    assert detector.changed()


def test_missing_file_counts_as_a_state(tmp_path: Path) -> None:
    file = tmp_path / "file"
    detector = ChangeDetector(file)
    assert not detector.exists
    assert not detector.changed()
    file.write_text("a")
    assert detector.changed()
    assert detector.exists
    file.unlink()
    assert detector.changed()
    assert not detector.exists
    detector.forget()
    assert not detector.differs()


@pytest.mark.parametrize(
    "name", ["folder", "file/below.csv", "/proc/none/out.csv", "/proc/out.csv"]
)
def test_file_that_cannot_be_written_is_refused_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(
        InvalidInput, match=r"^out: .* cannot be written \(.+\); give another file$"
    ):
        prepare_output(tmp_path / name, "out")


def test_folder_of_an_output_is_made_and_an_old_file_kept(tmp_path: Path) -> None:
    file = tmp_path / "new" / "deeper" / "out.csv"
    prepare_output(file, "out")
    assert list(file.parent.iterdir()) == []
    file.write_text("old")
    prepare_output(file, "out")
    assert file.read_text() == "old"


def no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_outbox_starts_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    first = Outbox.claim(tmp_path, "mobile")
    second = Outbox.claim(tmp_path, "mobile")
    assert first.hash_text("fine", None) == second.hash_text("fine", None)
    first.close()
    second.close()


def test_file_is_created_once_by_many_threads(tmp_path: Path) -> None:
    file = tmp_path / "salt"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: create_once(file, os.urandom(32)), range(50)))
    assert found == {file.read_bytes()}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_file_of_a_killed_process_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.files.CREATE_S", 0.0)
    file = tmp_path / "salt"
    file.touch()
    assert create_once(file, b"12345678") == b"12345678"
    assert create_once(file, b"abcdefgh") == b"12345678"
    assert list(tmp_path.iterdir()) == [file]
