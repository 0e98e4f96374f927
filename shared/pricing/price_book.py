"""Price book: money and energy of an attempt, from its measured milliseconds and bytes."""

from __future__ import annotations

from dataclasses import dataclass

from shared.domain import Tier


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Money and energy per measured millisecond and byte.

    The defaults are rounded list prices (two rented vCPUs per tier, metered mobile data, a
    mobile's large cores and its radio). Replace them with your own prices.
    """

    version: str = "2026-11-defaults"
    edge_usd_per_hour: float = 0.05
    cloud_usd_per_hour: float = 0.10
    network_usd_per_gb: float = 2.0
    mobile_compute_mw: float = 2500.0
    mobile_radio_nj_per_byte: float = 500.0

    def usd(self, tier: Tier, compute_ms: float, moved_bytes: int) -> float:
        """Return the US dollars of an attempt: rented compute time and metered bytes."""
        hourly = {
            Tier.MOBILE: 0.0,
            Tier.EDGE: self.edge_usd_per_hour,
            Tier.CLOUD: self.cloud_usd_per_hour,
        }[tier]
        return hourly * compute_ms / 3.6e6 + self.network_usd_per_gb * moved_bytes / 1e9

    def mobile_energy_mj(self, tier: Tier, compute_ms: float, moved_bytes: int) -> float:
        """Return the mobile's energy in mJ: its computing, or its radio for other tiers."""
        if tier is Tier.MOBILE:
            return self.mobile_compute_mw * compute_ms / 1e3
        return self.mobile_radio_nj_per_byte * moved_bytes / 1e6
