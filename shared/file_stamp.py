"""Stamp of a file, to read it again when it has changed."""

from __future__ import annotations

from pathlib import Path

FileStamp = tuple[int, int, int]


def file_stamp(file: Path) -> FileStamp | None:
    """Return modification time, size and inode of ``file``; None if it cannot be read."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
