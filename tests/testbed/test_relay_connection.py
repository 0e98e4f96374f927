"""A relayed connection whose peer resets it while bytes are queued."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from shared.link_profiles import parse_link
from testbed.links.connection import DirectedStream
from testbed.links.timing import LinkDirection


class Reset:
    """A transport whose peer has reset the connection; the event loop does not know it yet."""

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(107, "Transport endpoint is not connected")


def test_end_of_stream_to_a_lost_peer_finishes_the_stream() -> None:
    """When a link recovers, an error on one connection must not stop the others."""
    finished: list[bool] = []

    async def run() -> None:
        relay = SimpleNamespace(stalled=True)
        direction = LinkDirection(parse_link("lan"), up=True, seed=0)
        now = asyncio.get_running_loop().time()
        stream = DirectedStream(cast(Any, relay), direction, now - 1, lambda: finished.append(True))
        stream.sink = cast(asyncio.Transport, Reset())
        stream.receive_end()
        stream._queue[0] = (0.0, stream._queue[0][1])  # it is due now
        assert not finished
        relay.stalled = False
        stream.deliver()

    asyncio.run(run())
    assert finished == [True]
