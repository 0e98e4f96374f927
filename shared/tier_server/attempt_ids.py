"""Identifiers of the attempts that a tier has accepted: each attempt is answered once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from shared.errors import AttemptRepeated

REMEMBERED = 65_536
"""Number of identifiers that are remembered; about 15 MB."""


class AttemptIds:
    """The last `REMEMBERED` attempts. For use in one event loop.

    An attempt has one entry for each side in the ledger, so that a second answer under the same
    identifier would be work that no entry records. After a restart the tier knows the attempts
    whose entries are still in its outbox, which keeps the first end of an attempt. The ledger
    reports the ones that a tier does not notice, because it has forgotten the identifier or because
    another server got it.
    """

    def __init__(self, known: Iterable[str] = (), remembered: int = REMEMBERED) -> None:
        """``known`` are the attempts of an earlier process, oldest first."""
        self._remembered = remembered
        # a dict would search its deleted entries for the oldest one, 10 µs a request
        self._ids: OrderedDict[str, None] = OrderedDict.fromkeys(known)

    def accept(self, attempt_id: str) -> None:
        """Remember an attempt; raise `AttemptRepeated` if it is known."""
        if attempt_id in self._ids:
            raise AttemptRepeated(
                "attempt_id: this attempt was made before; give each attempt a new identifier",
                field="attempt_id",
            )
        self._ids[attempt_id] = None
        if len(self._ids) > self._remembered:
            self._ids.popitem(last=False)
