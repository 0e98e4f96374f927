"""Identifiers of the attempts that a tier has accepted: each attempt is answered once."""

from __future__ import annotations

from collections.abc import Iterable

from shared.errors import AttemptRepeated

REMEMBERED = 65_536
"""Number of identifiers that are remembered; about 10 MB."""


class AttemptIds:
    """The last `REMEMBERED` attempts. For use in one event loop.

    An attempt has one entry for each side in the ledger, so that a second answer under the same
    identifier would be work that no entry records. After a restart the tier knows the
    attempts that are still in its outbox, which keeps the first end of each. The ledger reports the
    ones that a tier does not notice, because it has forgotten the identifier or because another
    server got it.
    """

    def __init__(self, known: Iterable[str] = (), remembered: int = REMEMBERED) -> None:
        """``known`` are the attempts of an earlier process, oldest first."""
        self._remembered = remembered
        self._ids: dict[str, None] = dict.fromkeys(known)

    def accept(self, attempt_id: str) -> None:
        """Remember an attempt; raise `AttemptRepeated` if it is known."""
        if attempt_id in self._ids:
            raise AttemptRepeated(
                "attempt_id: this attempt was made before; give each attempt a new identifier",
                field="attempt_id",
            )
        self._ids[attempt_id] = None
        if len(self._ids) > self._remembered:
            del self._ids[next(iter(self._ids))]
