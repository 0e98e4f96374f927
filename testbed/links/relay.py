"""TCP relay of one hop. Its link can be changed while connections run through it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from shared.link_profiles import LINKS, Link
from testbed.links.connection import Address, RelayedConnection, reset
from testbed.links.schedule import OUTAGES, LinkState, Outage, Schedule
from testbed.links.timing import LinkDirection
from testbed.links.traces import PacketTrace

MAX_CONNECTIONS = 400
"""Upper bound, since select handles 1,024 descriptors and a connection has two. Only the event loop
with select has timers finer than 1 ms."""
TARGET_POLL_S = 0.1
MAX_ACCEPTED_S = 0.003
"""Longest time from accepting to resetting a connection during ``reset-after-accept``."""

Directions = tuple[LinkDirection, LinkDirection]


class Relay:
    """Relay between ``listen`` and ``target`` with the delays, rates and outages of a link.

    ``further`` has the pairs (listen, target) of other replicas behind the same link, whose
    connections share its rates.

    Packet traces start with the schedule; before that, and for a probe, the link has their mean
    rates.

    A relay belongs to the event loop on which it is started. While nothing listens on a target
    it does not listen either, so that callers are refused as they would be without a relay.
    """

    def __init__(
        self,
        listen: Address,
        target: Address,
        schedule: Schedule,
        seed: int = 0,
        further: Iterable[tuple[Address, Address]] = (),
    ) -> None:
        self._listen = {target: listen} | {other: own for own, other in further}
        self._seed = seed
        self._schedule = schedule
        self.state = schedule.state_at(0.0)
        assert self.state.link is not None
        self._link: Link = self.state.link
        self._traces: tuple[PacketTrace | None, PacketTrace | None] = (None, None)
        self._traces_started = 0.0
        self.overhead_ms = 0.0
        self.outage: Outage | None = None
        self._directions = self._make_directions(self._link)
        self._probe_directions = self._make_directions(replace(self._link, loss=0.0))
        self.connections: set[RelayedConnection] = set()
        self._servers: dict[Address, asyncio.Server] = {}
        self._probe_server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._schedule_task: asyncio.Task[None] | None = None
        self._polled: set[Address] = set()
        self._random = random.Random(seed)
        self._counts = {"connections": 0, "rejected": 0, "up_bytes": 0, "down_bytes": 0}

    def _make_directions(self, link: Link) -> Directions:
        return (
            LinkDirection(link, up=True, seed=self._seed),
            LinkDirection(link, up=False, seed=self._seed),
        )

    @property
    def stalled(self) -> bool:
        """True while no byte may pass."""
        return self.outage == "stall"

    async def start(self) -> None:
        """Start to listen. The schedule starts with `run_schedule`."""
        for target in self._listen:
            await self._start(target)

    async def _start(self, target: Address) -> None:
        if target not in self._servers and self.outage != "reset":
            server = await self._serve(self._listen[target], target, self._directions)
            self._servers[target] = server

    async def close(self) -> None:
        """Stop listening and reset every connection."""
        for task in [*self._tasks, *([self._schedule_task] if self._schedule_task else [])]:
            task.cancel()
        await self.close_probe()
        self._stop_listening()
        self._reset_connections()

    async def _serve(
        self, listen: Address, target: Address, directions: Directions
    ) -> asyncio.Server:
        def accept() -> asyncio.Protocol:
            if len(self.connections) >= MAX_CONNECTIONS:
                self._counts["rejected"] += 1
                return _Rejected(0.0)
            if self.outage == "reset-after-accept" and directions is self._directions:
                self._counts["rejected"] += 1
                return _Rejected(self._random.uniform(0.0, MAX_ACCEPTED_S))
            self._counts["connections"] += directions is self._directions
            return RelayedConnection(self, target, directions).caller_side

        loop = asyncio.get_running_loop()
        return await loop.create_server(accept, *listen, reuse_address=True, backlog=256)

    def _stop_listening(self) -> None:
        for target in list(self._servers):
            self._servers.pop(target).close()

    def _reset_connections(self) -> None:
        for connection in list(self.connections):
            connection.close(broken=True)

    def change(self, state: LinkState) -> None:
        """Switch to another link or outage. Bytes on their way keep their delivery time."""
        self.state = state
        previous, self.outage = self.outage, state.outage
        if state.link is not None:
            self._link = state.link
            self._traces = (state.up_trace, state.down_trace)
            self._traces_started = asyncio.get_running_loop().time()
            self._update_directions()
        if self.outage == "reset":
            self._stop_listening()
            self._reset_connections()
        elif previous == "reset":
            self._spawn(self.start())
        if self.outage == "reset-after-accept":
            self._reset_connections()
        for connection in list(self.connections):
            connection.deliver()

    def set_overhead(self, overhead_ms: float) -> None:
        """Set the relay's own delay in each direction; the link's delay is reduced by it."""
        self.overhead_ms = overhead_ms
        self._update_directions()

    def _update_directions(self) -> None:
        for direction, trace in zip(self._directions, self._traces, strict=True):
            direction.change(self._link, self.overhead_ms, trace, self._traces_started)
        for direction in self._probe_directions:
            direction.change(replace(self._link, loss=0.0), self.overhead_ms)

    def run_schedule(self, schedule: Schedule | None = None) -> None:
        """Start a schedule from its beginning; by default the one that the relay was given."""
        self._schedule = schedule or self._schedule
        if self._schedule_task is not None:
            self._schedule_task.cancel()
        self.change(self._schedule.state_at(0.0))
        self._schedule_task = asyncio.get_running_loop().create_task(
            self._follow_schedule(self._schedule)
        )

    async def _follow_schedule(self, schedule: Schedule) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        elapsed_s = 0.0
        while (following := schedule.next_change(elapsed_s)) is not None:
            await asyncio.sleep(max(0.0, started + following - loop.time()))
            elapsed_s = following + 1e-6
            self.change(schedule.state_at(elapsed_s))

    async def open_probe(self, target: Address) -> int:
        """Relay a second port to another target and return it.

        Its connections have the delays and rates of the link, but no loss.
        """
        await self.close_probe()
        self._probe_server = await self._serve(("127.0.0.1", 0), target, self._probe_directions)
        return int(self._probe_server.sockets[0].getsockname()[1])

    async def close_probe(self) -> None:
        """Close the second port."""
        if self._probe_server is not None:
            self._probe_server.close()
            self._probe_server = None

    def connection_opened(self, connection: RelayedConnection) -> None:
        """Register a connection that a caller has opened."""
        self.connections.add(connection)

    def connection_closed(self, connection: RelayedConnection) -> None:
        """Remove a connection and count its bytes."""
        self.connections.discard(connection)
        self._count_bytes(connection)

    def target_lost(self, target: Address) -> None:
        """If nothing listens on the target any more, stop listening until something does."""
        if target in self._listen and target not in self._polled:
            self._polled.add(target)
            self._spawn(self._poll_target(target))

    async def _poll_target(self, target: Address) -> None:
        try:
            while not await is_listening(target):
                if target in self._servers:
                    self._servers.pop(target).close()
                await asyncio.sleep(TARGET_POLL_S)
            await self._start(target)
        finally:
            self._polled.discard(target)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count_bytes(self, connection: RelayedConnection) -> None:
        if connection.target not in self._listen:
            return  # bytes of a probe
        self._counts["up_bytes"] += connection.up.passed_bytes
        self._counts["down_bytes"] += connection.down.passed_bytes
        connection.up.passed_bytes = connection.down.passed_bytes = 0

    def report(self) -> dict[str, Any]:
        """Return the state of the link, what it can change to, and counts of what has passed it."""
        for connection in self.connections:
            self._count_bytes(connection)
        return {
            "spec": self.state.spec,
            "start_spec": self._schedule.state_at(0.0).spec,
            "presets": list(LINKS),
            "outages": list(OUTAGES),
            "outage": self.outage,
            "link": asdict(self._link),
            "overhead_ms": self.overhead_ms,
            "listening": len(self._servers) == len(self._listen),
            "open_connections": len(self.connections),
            "retransmissions": sum(direction.retransmissions for direction in self._directions),
            **self._counts,
        }


class _Rejected(asyncio.Protocol):
    """A connection that is reset ``after_s`` seconds after it was accepted."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._after_s:
            asyncio.get_running_loop().call_later(self._after_s, self._reset)
        else:
            self._reset()

    def _reset(self) -> None:
        if not self._transport.is_closing():  # the caller may have closed the connection
            reset(self._transport)


async def is_listening(target: Address) -> bool:
    """Return whether a server accepts connections at this address."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(*target), 1.0)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
