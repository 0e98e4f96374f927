"""Profiles of links between a mobile and its servers: delay, jitter and rates by name.

`SOURCES` gives the source of each number. The uplinks are assumptions: typical rates, not the
highest that a standard allows; `docs/results/resume.md` was computed with them. Loss is 0 in every
profile, because radio links resend lost frames, which shows as jitter. ``loss=0.01`` sets a loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from shared.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Link:
    """A link with its delay in one direction (ms) and its rates (megabits per second).

    ``jitter_ms`` is the largest difference of a delay from ``one_way_ms``, ``loss`` the share of
    segments that are lost on their first transmission.
    """

    title: str
    one_way_ms: float
    up_mbps: float
    down_mbps: float
    jitter_ms: float = 0.0
    loss: float = 0.0

    @property
    def round_trip_ms(self) -> float:
        """Round-trip time of an empty message, in ms."""
        return 2 * self.one_way_ms

    def network_ms(self, sent_bytes: float, received_bytes: float) -> float:
        """Return the time in ms that an exchange of this size takes on the link."""
        bits_ms = sent_bytes / self.up_mbps + received_bytes / self.down_mbps
        return self.round_trip_ms + 8 * bits_ms / 1e3


LINKS = {
    "3g": Link("3G", one_way_ms=150.0, up_mbps=1.0, down_mbps=1.6, jitter_ms=20.0),
    "4g": Link("4G", one_way_ms=35.0, up_mbps=10.0, down_mbps=12.0, jitter_ms=5.0),
    "5g": Link("5G", one_way_ms=10.0, up_mbps=50.0, down_mbps=200.0, jitter_ms=1.0),
    "wifi": Link("Wi-Fi", one_way_ms=1.0, up_mbps=100.0, down_mbps=100.0, jitter_ms=0.3),
    "lan": Link("LAN", one_way_ms=0.25, up_mbps=1000.0, down_mbps=1000.0),
    "satellite": Link("Satellite", one_way_ms=279.0, up_mbps=3.0, down_mbps=25.0, jitter_ms=10.0),
}

SOURCES = {
    "3g": "delay, down: WebPageTest's profile 3G (300 ms RTT, 1.6 Mbps); up, jitter: assumed",
    "4g": "delay, down: WebPageTest's profile LTE (70 ms RTT, 12 Mbps); up, jitter: assumed",
    "5g": "all assumed",
    "wifi": "delay: the throttling profile Wi-Fi of Firefox's developer tools (2 ms); "
    "rates, jitter: assumed",
    "lan": "all assumed: gigabit Ethernet through one switch",
    "satellite": "delay: one geostationary hop at the edge of the view, 279.0 ms (RFC 2488, "
    "section 2); rates: the FCC's broadband benchmark of 2015 (25 down, 3 up); jitter: assumed",
}

_BOUNDS = {
    "one_way_ms": (0.0, 10_000.0),
    "jitter_ms": (0.0, 5_000.0),
    "up_mbps": (0.01, math.inf),
    "down_mbps": (0.01, math.inf),
    "loss": (0.0, 0.5),
}


def parse_link(spec: str) -> Link:
    """Return the link for ``4g`` or ``4g,loss=0.01,up_mbps=2``; raises `InvalidInput`."""
    name, *changes = (word.strip() for word in spec.split(","))
    if name not in LINKS:
        names = ", ".join(LINKS)
        raise InvalidInput(
            f"link: {name[:40]!r} is not a link; choose one of {names}", field="link"
        )
    overrides: dict[str, float] = {}
    for change in changes:
        field, _, value = change.partition("=")
        low, high = _BOUNDS.get(field, (1.0, 0.0))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            limits = ", ".join(f"{key} {a:g} to {b:g}" for key, (a, b) in _BOUNDS.items())
            raise InvalidInput(f"link: {change[:40]!r} is invalid; allowed: {limits}", field="link")
        overrides[field] = number
    if not overrides:
        return LINKS[name]
    link = LINKS[name]
    return replace(
        link,
        title=f"{link.title}, changed",
        one_way_ms=overrides.get("one_way_ms", link.one_way_ms),
        jitter_ms=overrides.get("jitter_ms", link.jitter_ms),
        up_mbps=overrides.get("up_mbps", link.up_mbps),
        down_mbps=overrides.get("down_mbps", link.down_mbps),
        loss=overrides.get("loss", link.loss),
    )
