"""Delay of each tier, as recorded in the ledger, or as expected over another link."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from mobile_client.insight.request_trace import RequestTrace
from shared.domain import Tier
from shared.ledger.entry import LedgerEntry
from shared.link_profiles import Link


class Delays:
    """Milliseconds until an answer of each tier: the tier's own time and the network's.

    With a ``link``, the network's time is computed for the recorded bytes on that link; without
    one, it is the measured time. For a tier without recorded answers (``unmeasured``), the tier's
    own time is the other tiers' mean time per layer times ``layers``; its network time and bytes
    are the means over the offloaded answers.
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
        self._mean_ms = {tier: self._compute_mean_ms(tier, layers[tier]) for tier in Tier}

    def answer_ms(self, entry: LedgerEntry) -> float:
        """Return the time of a recorded answer, or the time that it would take over the link."""
        if self._link is None or entry.tier is Tier.MOBILE:
            return entry.round_trip_ms or 0.0
        return _own_ms(entry) + self._link.network_ms(entry.sent_bytes, entry.received_bytes)

    def mean_ms(self, tier: Tier) -> float:
        """Return the mean time of the tier's answers."""
        return self._mean_ms[tier]

    def means_ms(self) -> dict[Tier, float]:
        """Return `mean_ms` of every tier."""
        return dict(self._mean_ms)

    def _compute_mean_ms(self, tier: Tier, layers: float) -> float:
        if self._entries[tier]:
            return float(np.mean([self.answer_ms(entry) for entry in self._entries[tier]]))
        everywhere = [entry for entries in self._entries.values() for entry in entries]
        per_layer = [_own_ms(entry) / max(1, _layers_run(entry)) for entry in everywhere]
        own_ms = layers * float(np.mean(per_layer)) if per_layer else 0.0
        if tier is Tier.MOBILE:
            return own_ms
        offloaded = [entry for entry in everywhere if entry.tier is not Tier.MOBILE]
        if self._link is not None:
            moved = [(entry.sent_bytes, entry.received_bytes) for entry in offloaded] or [(0, 0)]
            sent_bytes, received_bytes = np.mean(moved, axis=0)
            return own_ms + self._link.network_ms(float(sent_bytes), float(received_bytes))
        network_ms = [entry.network_ms or 0.0 for entry in offloaded]
        return own_ms + (float(np.mean(network_ms)) if network_ms else 0.0)


def _own_ms(entry: LedgerEntry) -> float:
    return max(0.0, (entry.round_trip_ms or 0.0) - (entry.network_ms or 0.0))


def _layers_run(entry: LedgerEntry) -> int:
    return (entry.exit_layer or 1) - (entry.resumed_after or 0)
