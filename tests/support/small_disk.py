"""A small file system that can be filled."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOM = 400_000


class SmallDisk:
    """A file system of a few megabytes, or, without permission to mount, a limit on file sizes."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        try:
            self.mounted = subprocess.run(mount, capture_output=True).returncode == 0
        except OSError:
            self.mounted = False

    @contextmanager
    def full(self) -> Iterator[None]:
        """Fill the disk except for `ROOM` bytes until the end of the block."""
        if not self.mounted:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            return
        ballast = self.folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue
            file.truncate(file.tell() - ROOM)
        try:
            yield
        finally:
            ballast.unlink()

    def fill_up(self) -> Path:
        """Take every free byte of a mounted disk; deleting the returned file gives them back."""
        ballast = self.folder / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        return ballast

    def close(self) -> None:
        """Unmount the file system."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Yield a file system at a new ``folder``; skip the test if it cannot be mounted."""
    folder.mkdir()
    disk = SmallDisk(folder, megabytes)
    if not disk.mounted:
        pytest.skip("a small file system needs the right to mount")
    yield disk
    disk.close()
