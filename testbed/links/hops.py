"""The testbed's emulated links: a relay for each hop that has one, measured before it is used."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from shared.errors import InvalidInput
from testbed.links.client import LinkControl
from testbed.links.probe import Measured, measure
from testbed.links.schedule import read_schedule
from testbed.processes.processes import Role, Testbed

HOPS = {
    "mobile-edge": ("mobile", "edge"),
    "mobile-cloud": ("mobile", "cloud"),
    "mobile-ledger": ("mobile", "ledger"),
    "edge-cloud": ("edge", "cloud"),
    "edge-ledger": ("edge", "ledger"),
    "cloud-ledger": ("cloud", "ledger"),
}
"""Who asks whom over each hop. Nothing asks over edge-cloud yet: the mobile asks the cloud."""
PREFIX = "link-"


@dataclass(frozen=True, slots=True)
class Hop:
    """A hop with a link: in which words it was asked for, where it listens and is controlled."""

    name: str
    words: str
    port: int
    control_port: int
    seed: int = 0

    @property
    def control(self) -> LinkControl:
        """To look at it and to change it."""
        return LinkControl(self.name, f"http://127.0.0.1:{self.control_port}")

    def role(self, target_port: int) -> Role:
        """Its process; the role's port is that of its control."""
        settings = {
            "DIMEE_LINK": self.words,
            "DIMEE_LINK_LISTEN": f"127.0.0.1:{self.port}",
            "DIMEE_LINK_TARGET": f"127.0.0.1:{target_port}",
            "DIMEE_LINK_SEED": str(self.seed),
        }
        return Role(PREFIX + self.name, "testbed.links", self.control_port, settings)


def make_hops(asked: Iterable[str], seed: int = 0) -> list[Hop]:
    """From ``mobile-edge=4g`` and the like; raises `InvalidInput` before anything is started."""
    words: dict[str, str] = {}
    for one in asked:
        name, _, link = one.partition("=")
        if name not in HOPS:
            known = ", ".join(HOPS)
            raise InvalidInput(f"--link: {name[:40]!r} is no hop; take one of {known}")
        if name in words:
            raise InvalidInput(f"--link: {name} has two links; give it one")
        read_schedule(link)
        words[name] = link
    ports = _free_ports(2 * len(words))
    return [Hop(name, link, ports.pop(), ports.pop(), seed) for name, link in words.items()]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def with_links(roles: Iterable[Role], hops: Iterable[Hop]) -> list[Role]:
    """The roles, those that ask over a hop with its link's address; the links stand first."""
    by_name = {role.name: role for role in roles}
    links = []
    for hop in hops:
        caller, target = HOPS[hop.name]
        links.append(hop.role(by_name[target].port))
        role = by_name[caller]
        over = {f"DIMEE_{target.upper()}_URL": f"http://127.0.0.1:{hop.port}"}
        by_name[caller] = Role(role.name, role.module, role.port, role.settings | over)
    return [*links, *by_name.values()]


def check_links(
    hops: Iterable[Hop], allow_unverified: bool, say: Callable[[str], None]
) -> dict[str, Measured]:
    """Measure each link, then begin its schedule; raises `LinkOff` unless ``allow_unverified``."""
    found = {}
    for hop in hops:
        measured = found[hop.name] = measure(hop.control)
        say(f"  {measured.line()}")
        if not allow_unverified:
            measured.refuse()
    for hop in hops:
        hop.control.run_schedule()
    return found


def describe(
    testbed: Testbed, hops: Iterable[Hop], found: Mapping[str, Measured]
) -> dict[str, object]:
    """What others need to find the testbed's processes and links: it becomes ``testbed.json``."""
    return {
        "roles": {
            name: {"url": role.url, "pid": testbed.processes[name].pid}
            for name, role in testbed.roles.items()
        },
        "links": {
            hop.name: {"words": hop.words, "port": hop.port, "control": hop.control.url,
                       "measured": found[hop.name].as_json()}
            for hop in hops
        },
    }  # fmt: skip
