"""A testbed of one's own to break: four processes, and a relay on each hop that may be cut."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mobile_client.links import Hop, make_hops
from mobile_client.processes import Testbed
from mobile_client.testbed import PORTS, make_testbed

HOPS = ("phone-edge", "phone-cloud", "phone-ledger", "edge-ledger", "cloud-ledger")
PLAIN = "ethernet"
"""The link of every hop where nothing is wrong."""


@dataclass(frozen=True)
class Bed:
    """The processes and the links between them."""

    testbed: Testbed
    hops: dict[str, Hop]

    @property
    def url(self) -> str:
        """The phone's gateway."""
        return self.testbed.roles["mobile"].url

    @property
    def ledger_url(self) -> str:
        """The ledger, past its links."""
        return self.testbed.roles["ledger"].url

    def link(self, hop: str, words: str = PLAIN) -> None:
        """Make a link something else."""
        self.hops[hop].control.change(words)

    def pause(self, role: str) -> None:
        """Stop a process as a machine that hangs does: its connections stand."""
        os.kill(self.testbed.processes[role].pid, signal.SIGSTOP)

    def go_on(self, role: str) -> None:
        """Let a paused process go on."""
        os.kill(self.testbed.processes[role].pid, signal.SIGCONT)

    def revive(self, role: str) -> None:
        """Start a killed process again and wait until it is ready."""
        self.testbed.start(role)
        self.testbed.wait_ready(role)

    def heal(self) -> None:
        """Whatever was done: every process runs and is ready, every link is plain."""
        for hop in self.hops:
            self.link(hop)
        for role in PORTS:
            if self.testbed.processes[role].poll() is None:
                self.go_on(role)
            else:
                self.testbed.start(role)
        for role in PORTS:
            self.testbed.wait_ready(role)


@contextmanager
def standing(folder: Path, hops: Sequence[str] = HOPS, **settings: str) -> Iterator[Bed]:
    """A testbed on free ports, ended afterwards."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    made = make_hops([f"{hop}={PLAIN}" for hop in hops])
    with make_testbed(ports, folder, settings, made) as testbed:
        testbed.start_all()
        bed = Bed(testbed, {hop.name: hop for hop in made})
        try:
            yield bed
        finally:  # a paused process would not hear that it should end
            for role in PORTS:
                if testbed.processes[role].poll() is None:
                    bed.go_on(role)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
