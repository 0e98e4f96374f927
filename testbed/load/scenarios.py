"""What happens during a run: how the rate moves, and what breaks when."""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.load.arrivals import Shape

FLAT: Shape = ((0.0, 1.0), (1.0, 1.0))


@dataclass(frozen=True, slots=True)
class Fault:
    """Something done at a share of the duration: ``kill`` a role, or ``link`` a hop to words.

    Words None: as the link was at the start.
    """

    at: float
    what: str
    name: str
    words: str | None = None

    def __str__(self) -> str:
        if self.what == "kill":
            return f"{self.name} killed"
        return f"{self.name}: {self.words or 'as before'}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """``links`` are those it needs besides what was asked for; ``revive`` a share too.

    ``rare``: the share of requests that escalate, the others stay on the mobile.
    """

    title: str
    shape: Shape = FLAT
    faults: tuple[Fault, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    revive: float | None = None
    rare: float | None = None
    rate: float = 20.0


SCENARIOS = {
    "steady": Scenario("the same rate throughout"),
    "burst": Scenario(
        "four times the rate in the middle fifth",
        shape=((0, 1), (0.4, 1), (0.4, 4), (0.6, 4), (0.6, 1), (1, 1)),
    ),
    "ramp": Scenario("from a tenth of the rate to twice the rate", shape=((0, 0.1), (1, 2))),
    "edge-dies": Scenario(
        "the edge is killed after a third, and comes back after another",
        faults=(Fault(1 / 3, "kill", "edge"),),
        revive=1 / 3,
    ),
    "cloud-slow": Scenario(
        "the way to the cloud is a satellite in the middle third",
        faults=(
            Fault(1 / 3, "link", "mobile-cloud", "satellite"),
            Fault(2 / 3, "link", "mobile-cloud"),
        ),
        links={"mobile-cloud": "wifi"},
    ),
    "link-flap": Scenario(
        "the way to the edge is cut three times, for a twentieth of the time each",
        faults=tuple(
            fault
            for at in (0.25, 0.50, 0.75)
            for fault in (
                Fault(at, "link", "mobile-edge", "cut"),
                Fault(at + 0.05, "link", "mobile-edge"),
            )
        ),
        links={"mobile-edge": "wifi"},
    ),
    "rare-escalation": Scenario(
        "1 % of the requests escalate, the others stay on the mobile", rare=0.01, rate=100.0
    ),
}
