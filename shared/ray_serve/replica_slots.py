"""Stable names for replicas whose engine gives each process a new one.

A replica of Ray Serve gets a random name each time it starts. Here it takes the first free slot of
its node instead. The kernel frees the slot of a process that dies, also by SIGKILL, so its
successor has the same name. The outboxes are in the same folder, and a process adopts those that no
process uses (`shared.ledger.outbox`).
"""

from __future__ import annotations

import os
from pathlib import Path

from shared.errors import DimeeError
from shared.ledger.file_lock import try_lock

MAX_SLOTS = 1_000
"""Most replicas of a tier on one node."""
_MAX_NODE_CHARS = 60  # a name has at most 64


class ReplicaSlot:
    """A slot of a node that this process holds until it closes it or ends."""

    def __init__(self, number: int, lock: int) -> None:
        self.number = number
        self._lock: int | None = lock

    def name(self, node: str) -> str:
        """Return the replica's name: that of its node (``DIMEE_REPLICA``) and its number."""
        return f"{node[:_MAX_NODE_CHARS]}-{self.number}"

    def close(self) -> None:
        """Free the slot."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def claim_slot(state_dir: Path, tier: str) -> ReplicaSlot:
    """Return the first free slot of a tier on this node.

    Raises `DimeeError` if the folder cannot be used or all slots are taken.
    """
    folder = Path(state_dir) / tier
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(MAX_SLOTS):
            lock = try_lock(folder / f"replica-{number}.lock")
            if lock is not None:
                return ReplicaSlot(number, lock)
    except OSError as error:
        raise DimeeError(
            f"state-dir: {folder} cannot hold the replicas' locks ({error.strerror}); set "
            "DIMEE_STATE_DIR to a folder on a local disk"
        ) from None
    raise DimeeError(f"state-dir: {MAX_SLOTS:,} replicas use {folder}; start no more on this node")
