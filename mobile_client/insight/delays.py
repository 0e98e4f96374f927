"""How long each tier took in the ledger's requests, and would take over another link."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from mobile_client.insight.request_trace import RequestTrace
from shared.domain import Tier
from shared.ledger.entry import LedgerEntry
from shared.link_profiles import Link


class Delays:
    """Milliseconds of an answer of each tier: its own time, and the network's.

    With a ``link`` the network's part is the link's for the bytes that were really moved, without
    one it is what was measured. A tier that answered nobody (``unmeasured``) is taken at the time
    that the others took for a layer, times its ``layers``, and at the others' network and bytes.
    """

    def __init__(
        self,
        requests: Iterable[RequestTrace],
        layers: Mapping[Tier, float],
        link: Link | None = None,
    ) -> None:
        self._link = link
        self._entries: dict[Tier, list[LedgerEntry]] = {tier: [] for tier in Tier}
        for request in requests:
            for tier, entry in request.answers.items():
                self._entries[tier].append(entry)
        self.unmeasured = tuple(tier for tier in Tier if not self._entries[tier])
        self._mean = {tier: self._mean_of(tier, layers[tier]) for tier in Tier}

    def of(self, entry: LedgerEntry) -> float:
        """What this answer took, or would have taken over the link."""
        if self._link is None or entry.tier is Tier.MOBILE:
            return entry.round_trip_ms or 0.0
        return _own_ms(entry) + self._link.network_ms(entry.sent_bytes, entry.received_bytes)

    def mean(self, tier: Tier) -> float:
        """The mean over the requests that the tier answered."""
        return self._mean[tier]

    def means(self) -> dict[Tier, float]:
        """`mean` of every tier."""
        return dict(self._mean)

    def _mean_of(self, tier: Tier, layers: float) -> float:
        if self._entries[tier]:
            return float(np.mean([self.of(entry) for entry in self._entries[tier]]))
        everywhere = [entry for entries in self._entries.values() for entry in entries]
        per_layer = [_own_ms(entry) / max(1, _ran(entry)) for entry in everywhere]
        own_ms = layers * float(np.mean(per_layer)) if per_layer else 0.0
        if tier is Tier.MOBILE:
            return own_ms
        sent = [entry for entry in everywhere if entry.tier is not Tier.MOBILE]
        if self._link is not None:
            moved = [(entry.sent_bytes, entry.received_bytes) for entry in sent] or [(0, 0)]
            up, down = np.mean(moved, axis=0)
            return own_ms + self._link.network_ms(float(up), float(down))
        return own_ms + (float(np.mean([_network_ms(entry) for entry in sent])) if sent else 0.0)


def _network_ms(entry: LedgerEntry) -> float:
    return entry.network_ms or 0.0


def _own_ms(entry: LedgerEntry) -> float:
    return max(0.0, (entry.round_trip_ms or 0.0) - _network_ms(entry))


def _ran(entry: LedgerEntry) -> int:
    return (entry.exit_layer or 1) - (entry.resumed_after or 0)
