"""Emulated links of a testbed: one relay process for each hop that has a link."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from shared.errors import InvalidInput
from shared.link_control import LinkControl
from testbed.links.probe import Measurement, describe, measure
from testbed.links.schedule import read_schedule
from testbed.processes.ports import free_ports
from testbed.processes.processes import Role, Testbed

HOPS = {
    "mobile-edge": ("mobile", "edge"),
    "mobile-cloud": ("mobile", "cloud"),
    "mobile-ledger": ("mobile", "ledger"),
    "edge-cloud": ("edge", "cloud"),
    "edge-ledger": ("edge", "ledger"),
    "cloud-ledger": ("cloud", "ledger"),
}
"""Caller and server of each hop. The edge does not call the cloud yet: edge-cloud stays idle."""
PREFIX = "link-"


@dataclass(frozen=True, slots=True)
class Hop:
    """A hop with a link: its specification, and the ports of its relay.

    ``further_ports`` are those at which it listens for the second and further replicas of the
    server. They share the link, as do all replicas of the caller.
    """

    name: str
    spec: str
    port: int
    control_port: int
    seed: int = 0
    further_ports: tuple[int, ...] = ()

    @property
    def ports(self) -> tuple[int, ...]:
        """Ports of the relay, one for each replica of the server."""
        return (self.port, *self.further_ports)

    @property
    def control(self) -> LinkControl:
        """Client of the relay's control endpoint."""
        return LinkControl(self.name, f"http://127.0.0.1:{self.control_port}")

    def role(self, *target_ports: int) -> Role:
        """Return the relay as a process; the role's port is that of the control endpoint."""
        settings = {
            "DIMEE_LINK": self.spec,
            "DIMEE_LINK_LISTEN": ",".join(f"127.0.0.1:{port}" for port in self.ports),
            "DIMEE_LINK_TARGET": ",".join(f"127.0.0.1:{port}" for port in target_ports),
            "DIMEE_LINK_SEED": str(self.seed),
        }
        return Role(PREFIX + self.name, "testbed.links", self.control_port, settings)


def make_hops(
    options: Iterable[str], seed: int = 0, replicas: Mapping[str, int] | None = None
) -> list[Hop]:
    """Parse options such as ``mobile-edge=4g``; raises `InvalidInput`.

    ``replicas`` is the number of processes of a server, one by default.
    """
    specs: dict[str, str] = {}
    for option in options:
        name, _, spec = option.partition("=")
        if name not in HOPS:
            names = ", ".join(HOPS)
            raise InvalidInput(f"--link: {name[:40]!r} is not a hop; choose one of {names}")
        if name in specs:
            raise InvalidInput(f"--link: {name} has two links; give it one")
        read_schedule(spec)
        specs[name] = spec
    counts = {name: (replicas or {}).get(HOPS[name][1], 1) for name in specs}
    ports = iter(free_ports(len(specs) + sum(counts.values())))
    return [
        Hop(name, spec, next(ports), next(ports), seed, tuple(islice(ports, counts[name] - 1)))
        for name, spec in specs.items()
    ]


def with_links(roles: Iterable[Role], hops: Sequence[Hop]) -> list[Role]:
    """Return the relays, then the roles; the caller of a hop gets the address of its relay.

    The mobile gets the addresses of their control endpoints, for its page.
    """
    by_name = {role.name: role for role in roles}
    relays = []
    controls = ",".join(f"{hop.name}={hop.control.url}" for hop in hops)
    if controls and "mobile" in by_name:
        role = by_name["mobile"]
        by_name["mobile"] = replace(
            role, settings=role.settings | {"DIMEE_LINK_CONTROLS": controls}
        )
    for hop in hops:
        caller, target = HOPS[hop.name]
        relays.append(hop.role(*(role.port for role in by_name.values() if _is(role, target))))
        urls = ",".join(f"http://127.0.0.1:{port}" for port in hop.ports)
        for role in [role for role in by_name.values() if _is(role, caller)]:
            settings = role.settings | {f"DIMEE_{target.upper()}_URL": urls}
            by_name[role.name] = replace(role, settings=settings)
    return [*relays, *by_name.values()]


def _is(role: Role, tier: str) -> bool:
    """Return whether a process is a tier, or one of its replicas."""
    return (role.tier or role.name) == tier


def verify_links(
    hops: Iterable[Hop], allow_unverified: bool, report: Callable[[str], None]
) -> dict[str, Measurement]:
    """Measure each link, then start its schedule.

    Raises `LinkUnverified` unless ``allow_unverified``.
    """
    measurements = {}
    for hop in hops:
        measurement = measurements[hop.name] = measure(hop.control)
        report(f"  {describe(measurement.as_json())}")
        if not allow_unverified:
            measurement.raise_if_unverified()
    for hop in hops:
        hop.control.run_schedule()
    return measurements


def testbed_facts(
    testbed: Testbed, hops: Iterable[Hop], measurements: Mapping[str, Measurement]
) -> dict[str, object]:
    """Return the content of ``testbed.json``: addresses and ids of processes, and the links."""
    return {
        "roles": {
            name: {"url": role.url, "pid": testbed.processes[name].pid, "tier": role.tier or name}
            for name, role in testbed.roles.items()
        },
        "links": {
            hop.name: {
                "spec": hop.spec,
                "port": hop.port,
                "control": hop.control.url,
                "measurement": measurements[hop.name].as_json(),
            }
            for hop in hops
        },
    }
