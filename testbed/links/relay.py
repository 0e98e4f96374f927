"""The relay of one hop: listens, joins each connection with the target, changes while it runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from shared.link_profiles import Link
from testbed.links.connection import Pipe, reset
from testbed.links.schedule import Outage, Schedule, State
from testbed.links.timing import Way

Address = tuple[str, int]
MOST_CONNECTIONS = 400
"""Two descriptors each: select, which alone has timers finer than 1 ms, takes 1024."""
LOOK_AGAIN_S = 0.1


class Relay:
    """One hop's link. Bound to the event loop that it is started on.

    While nobody listens at the target, nobody listens here: a caller is refused as it would be
    without a link.
    """

    def __init__(self, listen: Address, target: Address, schedule: Schedule, seed: int = 0) -> None:
        self._listen = listen
        self._target = target
        self._seed = seed
        self._schedule = schedule
        self.state: State = schedule.at(0.0)
        assert self.state.link is not None
        self._link: Link = self.state.link
        self.trim_ms = 0.0
        self.outage: Outage | None = None
        self._ways = self._make_ways(self._link)
        self._probe_ways = self._make_ways(_without_loss(self._link))
        self.pipes: set[Pipe] = set()
        self._server: asyncio.Server | None = None
        self._probe: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._looking = False
        self._counts = {"connections": 0, "turned_away": 0, "up_bytes": 0, "down_bytes": 0}

    def _make_ways(self, link: Link) -> tuple[Way, Way]:
        trim_ms = self.trim_ms
        return (
            Way(link, up=True, seed=self._seed, trim_ms=trim_ms),
            Way(link, up=False, seed=self._seed, trim_ms=trim_ms),
        )

    @property
    def cut(self) -> bool:
        """Whether nothing passes now."""
        return self.outage == "cut"

    async def start(self) -> None:
        """Listen; the schedule waits for `run_schedule`."""
        await self._open()

    async def close(self) -> None:
        """Close everything."""
        for task in [*self._tasks, *([self._running] if self._running else [])]:
            task.cancel()
        await self.close_probe()
        self._shut()
        for pipe in list(self.pipes):
            pipe.close(broken=True)

    async def _open(self) -> None:
        if self._server is None and self.outage != "refuse":
            self._server = await self._serve(self._listen, self._target, self._ways)

    async def _serve(
        self, listen: Address, target: Address, ways: tuple[Way, Way]
    ) -> asyncio.Server:
        def accept() -> asyncio.Protocol:
            if len(self.pipes) >= MOST_CONNECTIONS:
                self._counts["turned_away"] += 1
                return _TurnedAway()
            self._counts["connections"] += ways is self._ways
            return Pipe(self, target, ways).near

        loop = asyncio.get_running_loop()
        return await loop.create_server(accept, *listen, reuse_address=True, backlog=256)

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def change(self, state: State) -> None:
        """Be another link, or cut, from now on; what is under way keeps the time it has."""
        self.state = state
        was, self.outage = self.outage, state.outage
        if state.link is not None:
            self._link = state.link
            self._apply()
        if self.outage == "refuse":
            self._shut()
            for pipe in list(self.pipes):
                pipe.close(broken=True)
        elif was == "refuse":
            self._spawn(self._open())
        for pipe in list(self.pipes):
            pipe.wake()

    def trim(self, trim_ms: float) -> None:
        """Take what the relay itself adds to a way off the delay."""
        self.trim_ms = trim_ms
        self._apply()

    def _apply(self) -> None:
        for way in self._ways:
            way.change(self._link, self.trim_ms)
        for way in self._probe_ways:
            way.change(_without_loss(self._link), self.trim_ms)

    def run_schedule(self, schedule: Schedule | None = None) -> None:
        """Begin the schedule, or another one, from its start."""
        self._schedule = schedule or self._schedule
        if self._running is not None:
            self._running.cancel()
        self._running = asyncio.get_running_loop().create_task(self._run(self._schedule))

    async def _run(self, schedule: Schedule) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self.change(schedule.at(0.0))
        elapsed_s = 0.0
        while (following := schedule.next_change(elapsed_s)) is not None:
            await asyncio.sleep(max(0.0, started + following - loop.time()))
            elapsed_s = following + 1e-6
            self.change(schedule.at(elapsed_s))

    async def open_probe(self, target: Address) -> int:
        """A second way in, over the same delays and rates without loss, to another target."""
        await self.close_probe()
        self._probe = await self._serve(("127.0.0.1", 0), target, self._probe_ways)
        return int(self._probe.sockets[0].getsockname()[1])

    async def close_probe(self) -> None:
        """Close the second way in."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def look_after(self, target: Address) -> None:
        """A connection to the target ended: if nobody listens there, nobody listens here."""
        if target == self._target and not self._looking:
            self._looking = True
            self._spawn(self._look())

    async def _look(self) -> None:
        try:
            while not await _listens(self._target):
                self._shut()
                await asyncio.sleep(LOOK_AGAIN_S)
            await self._open()
        finally:
            self._looking = False

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def count(self, pipe: Pipe) -> None:
        """Add what a connection has moved; it is counted once, and a probe's never."""
        if pipe.target != self._target:
            return
        self._counts["up_bytes"] += pipe.up.passed_bytes
        self._counts["down_bytes"] += pipe.down.passed_bytes
        pipe.up.passed_bytes = pipe.down.passed_bytes = 0

    def report(self) -> dict[str, Any]:
        """What the link is now, and what has passed it."""
        for pipe in self.pipes:
            self.count(pipe)
        return {
            "words": self.state.words,
            "outage": self.outage,
            "link": asdict(self._link),
            "trim_ms": self.trim_ms,
            "listening": self._server is not None,
            "open_connections": len(self.pipes),
            "stalls": sum(way.stalls for way in self._ways),
            **self._counts,
        }


class _TurnedAway(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        reset(transport)


def _without_loss(link: Link) -> Link:
    return Link(link.title, link.one_way_ms, link.up_mbps, link.down_mbps, link.jitter_ms)


async def _listens(target: Address) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(*target), 1.0)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
