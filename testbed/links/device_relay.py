"""Relay with a link for each device: ``python -m testbed.links.device_relay``.

A device is an address in 127.0.0.0/8, from which it opens its connections. All of its connections,
to whichever server, share one uplink and one downlink, as on its radio; those of another device
have their own. The relay reads a `RelayPlan` from its standard input, prints ``ready`` and relays
until that input ends. A further line sets the relay's own delay in ms, which is subtracted.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from testbed.links.connection import Address, RelayedConnection
from testbed.links.relay import TARGET_POLL_S, is_listening
from testbed.links.schedule import LinkState, parse_state
from testbed.links.timer_selector import TimerSelector
from testbed.links.timing import LinkDirection

FIRST_DEVICE, FIRST_PROBE = (127 << 24) + (64 << 16) + 1, (127 << 24) + (127 << 16) + 1
MAX_DEVICES = 1_000_000
BACKLOG = 1024


class RelayPlan(BaseModel):
    """Links by name, the link of each device, and the servers: (port to listen on, its target).

    Addresses of devices are `device_address`. Traces are read relative to ``folder``. A probe's
    device has the link of its name without loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    links: dict[str, str]
    devices: list[str]
    servers: list[tuple[int, int]]
    seed: int = 0


def device_address(number: int) -> str:
    """Return the address of the device ``number``, from 0."""
    return _dotted(FIRST_DEVICE + number)


def probe_address(number: int) -> str:
    """Return the address of a probe of the link ``number`` in the plan's order, from 0."""
    return _dotted(FIRST_PROBE + number)


def _dotted(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


class DeviceLink:
    """Both directions of one device's link, from the first connection on."""

    def __init__(self, state: LinkState, seed: str, overhead_ms: float) -> None:
        assert state.link is not None
        self._state, self._link = state, state.link
        # devices with a trace are at different places of it, as those who recorded it would be
        self._offset = random.Random(seed).random()
        number = random.Random(f"{seed}:loss").getrandbits(32)
        self.directions = tuple(LinkDirection(self._link, up, number) for up in (True, False))
        self.set_overhead(overhead_ms)

    def set_overhead(self, overhead_ms: float) -> None:
        """Subtract the relay's own delay."""
        now = asyncio.get_running_loop().time()
        traces = (self._state.up_trace, self._state.down_trace)
        for direction, trace in zip(self.directions, traces, strict=True):
            started = now - self._offset * (trace.period_ms / 1e3 if trace else 0.0)
            direction.change(self._link, overhead_ms, trace, started)


class DeviceRelay:
    """Relay between devices and servers, on the event loop on which it is started."""

    stalled = False

    def __init__(self, plan: RelayPlan) -> None:
        self._plan = plan
        folder = Path(plan.folder)
        self._states = {name: parse_state(spec, folder) for name, spec in plan.links.items()}
        self._classes = {device_address(n): name for n, name in enumerate(plan.devices)}
        self._probes = {probe_address(n): name for n, name in enumerate(plan.links)}
        self._links: dict[str, DeviceLink] = {}
        self._overhead_ms = 0.0
        self._servers: dict[Address, tuple[int, asyncio.Server | None]] = {}
        self._polling: dict[Address, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Listen for every server."""
        for port, target in self._plan.servers:
            await self._listen(("127.0.0.1", target), port)

    async def _listen(self, target: Address, port: int) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Arriving(self, target), "127.0.0.1", port, backlog=BACKLOG
        )
        self._servers[target] = port, server

    def link_of(self, address: str) -> DeviceLink | None:
        """Return the link of a device; None for an address that is none."""
        if address not in self._links:
            name = self._classes.get(address) or self._probes.get(address)
            if name is None:
                return None
            state = self._states[name]
            if address in self._probes and state.link is not None:
                state = replace(state, link=replace(state.link, loss=0.0))
                state = replace(state, up_trace=None, down_trace=None)
            seed = f"{self._plan.seed}:{address}"
            self._links[address] = DeviceLink(state, seed, self._overhead_ms)
        return self._links[address]

    def set_overhead(self, overhead_ms: float) -> None:
        """Subtract the relay's own delay in each direction from every link."""
        self._overhead_ms = overhead_ms
        for link in self._links.values():
            link.set_overhead(overhead_ms)

    def connection_opened(self, connection: RelayedConnection) -> None:
        """Do nothing: a connection holds itself by its transports."""

    def connection_closed(self, connection: RelayedConnection) -> None:
        """Do nothing."""

    def target_lost(self, target: Address) -> None:
        """Refuse connections while nothing listens on the target, as it would itself."""
        if target not in self._polling:
            self._polling[target] = asyncio.get_running_loop().create_task(self._poll(target))

    async def _poll(self, target: Address) -> None:
        port, _ = self._servers[target]
        try:
            while not await is_listening(target):
                server = self._servers[target][1]
                if server is not None:
                    server.close()
                    self._servers[target] = port, None
                await asyncio.sleep(TARGET_POLL_S)
            if self._servers[target][1] is None:
                await self._listen(target, port)
        finally:
            del self._polling[target]


class _Arriving(asyncio.Protocol):
    """A new connection, whose device is known once it is made."""

    def __init__(self, relay: DeviceRelay, target: Address) -> None:
        self._relay = relay
        self._target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        link = self._relay.link_of(transport.get_extra_info("peername")[0])
        if link is None:
            transport.abort()
            return
        up, down = link.directions
        endpoint = RelayedConnection(self._relay, self._target, (up, down)).caller_side
        transport.set_protocol(endpoint)
        endpoint.connection_made(transport)


def allow_descriptors() -> int:
    """Raise this process's limit of open files as far as it may; return the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


async def run(read_line: Callable[[], str]) -> None:
    """Relay until ``read_line`` returns an empty text."""
    plan = RelayPlan.model_validate(json.loads(await asyncio.to_thread(read_line)))
    relay = DeviceRelay(plan)
    await relay.start()
    print("ready", flush=True)
    while line := await asyncio.to_thread(read_line):
        relay.set_overhead(float(line))
        print("set", flush=True)


def main() -> None:
    """Read the plan and run."""
    allow_descriptors()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TimerSelector())) as runner:
        runner.run(run(sys.stdin.readline))


if __name__ == "__main__":
    main()
