"""Scenarios of ``dimee load``: how the rate changes, and which faults are injected when."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from testbed.load.arrivals import FLAT, Shape


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault at a share of the duration: ``kill`` a role, or change the ``link`` of a hop.

    ``spec`` describes the new link; None restores the link of the start.
    """

    at: float
    kind: str
    name: str
    spec: str | None = None

    def __str__(self) -> str:
        if self.kind == "kill":
            return f"{self.name} killed"
        return f"{self.name}: {self.spec or 'restored'}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario; ``links`` are those it needs besides the ones of the command line.

    ``restart_after`` is the share of the duration after which a killed process is restarted,
    ``escalating`` the share of requests that escalate while the others stay on the mobile, and
    ``rate`` the default in requests a second.
    """

    title: str
    shape: Shape = FLAT
    faults: tuple[Fault, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    restart_after: float | None = None
    escalating: float | None = None
    rate: float = 20.0


SCENARIOS = {
    "steady": Scenario("constant rate"),
    "burst": Scenario(
        "four times the rate in the middle fifth",
        shape=((0, 1), (0.4, 1), (0.4, 4), (0.6, 4), (0.6, 1), (1, 1)),
    ),
    "ramp": Scenario("from a tenth of the rate to twice the rate", shape=((0, 0.1), (1, 2))),
    "edge-dies": Scenario(
        "the edge is killed after a third of the time and restarted after another",
        faults=(Fault(1 / 3, "kill", "edge"),),
        restart_after=1 / 3,
    ),
    "cloud-slow": Scenario(
        "the link to the cloud is a satellite in the middle third",
        faults=(
            Fault(1 / 3, "link", "mobile-cloud", "satellite"),
            Fault(2 / 3, "link", "mobile-cloud"),
        ),
        links={"mobile-cloud": "wifi"},
    ),
    "link-flap": Scenario(
        "the link to the edge stalls three times, for a twentieth of the time each",
        faults=tuple(
            fault
            for at in (0.25, 0.50, 0.75)
            for fault in (
                Fault(at, "link", "mobile-edge", "stall"),
                Fault(at + 0.05, "link", "mobile-edge"),
            )
        ),
        links={"mobile-edge": "wifi"},
    ),
    "rare-escalation": Scenario(
        "1 % of the requests escalate, the others stay on the mobile", escalating=0.01, rate=100.0
    ),
}


def scenario_facts(name: str, arrivals: Path | None) -> dict[str, str]:
    """Return name and title of the scenario; send times from a file replace those of a scenario."""
    scenario = SCENARIOS[name]
    if arrivals is None:
        return {"scenario": name, "scenario_title": scenario.title}
    times = f"send times from {arrivals}"
    if not scenario.faults and scenario.escalating is None:
        return {"scenario": "arrivals", "scenario_title": times}
    return {"scenario": f"{name} with arrivals", "scenario_title": f"{times}; {scenario.title}"}
