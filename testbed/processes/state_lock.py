"""Lock of a testbed's state folder: two testbeds would share a ledger and each other's record."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import DimeeError
from shared.ledger.file_lock import try_lock

LOCK_FILE = "testbed.lock"


@contextmanager
def locked_state(folder: Path) -> Iterator[None]:
    """Lock ``folder`` during the block.

    The kernel releases the lock when this process ends in any way. Raises `DimeeError` if another
    testbed runs in the folder, or if the folder cannot be written.
    """
    file = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = try_lock(file)
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
    except OSError as error:
        raise DimeeError(
            f"state-dir: {folder} cannot hold a testbed ({error.strerror or error}); choose "
            "another with --state-dir"
        ) from None
    if descriptor is None:
        owner = file.read_text(errors="replace").strip() or "unknown"
        raise DimeeError(
            f"state-dir: another testbed runs in {folder} (process {owner}); stop it, or choose "
            "another folder with --state-dir"
        )
    try:
        yield
    finally:
        os.close(descriptor)
