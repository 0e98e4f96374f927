"""One connection through a link whose peer goes away at a bad moment."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from shared.link_profiles import parse_link
from testbed.links.connection import Pump
from testbed.links.timing import Way


class Reset:
    """A transport whose peer has reset the connection, before anybody was told."""

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(107, "Transport endpoint is not connected")


def test_an_end_for_a_peer_that_is_gone_ends_the_pump() -> None:
    """A link that becomes whole again wakes every connection: none may stop the others."""
    finished: list[bool] = []

    async def run() -> None:
        relay = SimpleNamespace(cut=True)
        way = Way(parse_link("lan"), up=True, seed=0, trim_ms=0.0)
        now = asyncio.get_running_loop().time()
        pump = Pump(cast(Any, relay), way, now - 1, lambda: finished.append(True))
        pump.sink = cast(asyncio.Transport, Reset())
        pump.take_end()
        pump._queue[0] = (0.0, pump._queue[0][1])  # its time has come
        assert not finished
        relay.cut = False
        pump.wake()

    asyncio.run(run())
    assert finished == [True]
