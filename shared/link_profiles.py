"""Links between a mobile and its servers, as they are every day: delay, jitter and rates by name.

Sources: `SOURCES` says of each number where it is from. The uplinks are assumptions, everyday rates
of their kind and not the best that each standard allows; `docs/results/resume.md` was computed with
them. Loss is 0 everywhere: radio links repeat lost frames themselves, which is felt as jitter; give
``loss=0.01`` to feel more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from shared.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Link:
    """One way's delay in ms, and the rates up and down in megabits a second.

    ``jitter_ms`` is the most that a delay differs from ``one_way_ms``, ``loss`` the share of
    segments that are lost on their first way.
    """

    title: str
    one_way_ms: float
    up_mbps: float
    down_mbps: float
    jitter_ms: float = 0.0
    loss: float = 0.0

    @property
    def round_trip_ms(self) -> float:
        """There and back, of an empty message."""
        return 2 * self.one_way_ms

    def network_ms(self, sent_bytes: float, received_bytes: float) -> float:
        """What an exchange of so many bytes spends on the link, in ms."""
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


def parse_link(words: str) -> Link:
    """A link from ``4g`` or ``4g,loss=0.01,up_mbps=2``; raises `InvalidInput`."""
    name, *changes = (word.strip() for word in words.split(","))
    if name not in LINKS:
        known = ", ".join(LINKS)
        raise InvalidInput(f"link: {name[:40]!r} is no link; take one of {known}", field="link")
    given: dict[str, float] = {}
    for change in changes:
        what, _, value = change.partition("=")
        low, high = _BOUNDS.get(what, (1.0, 0.0))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            limits = ", ".join(f"{key} {a:g} to {b:g}" for key, (a, b) in _BOUNDS.items())
            raise InvalidInput(f"link: {change[:40]!r} cannot be; take {limits}", field="link")
        given[what] = number
    if not given:
        return LINKS[name]
    link = LINKS[name]
    return replace(
        link,
        title=f"{link.title}, changed",
        one_way_ms=given.get("one_way_ms", link.one_way_ms),
        jitter_ms=given.get("jitter_ms", link.jitter_ms),
        up_mbps=given.get("up_mbps", link.up_mbps),
        down_mbps=given.get("down_mbps", link.down_mbps),
        loss=given.get("loss", link.loss),
    )
