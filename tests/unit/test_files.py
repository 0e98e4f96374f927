"""`ChangeDetector` detects changed, replaced and missing files."""

from __future__ import annotations

from pathlib import Path

from shared.files import ChangeDetector


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
