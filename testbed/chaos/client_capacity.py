"""Measure how many requests the client can send: ``python -m testbed.chaos.client_capacity``.

That server is a process of its own, in the same language: a rate it does not reach with the client
late is a bound on both.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from multiprocessing.connection import Connection as Pipe
from typing import Any

import click

from testbed.chaos.client import open_loop, run
from testbed.chaos.overload import PATH, describe, make_body
from testbed.load.arrivals import poisson
from testbed.load.scenarios import FLAT

_ANSWER = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}"


class _Refuses(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        self._transport.write(_ANSWER)


def _serve(pipe: Pipe) -> None:
    async def forever() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Refuses, "127.0.0.1", 0, backlog=2048)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    run(forever())


def reach(rate: float, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Send at ``rate`` for so long; the run in numbers."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs,), daemon=True
    )
    server.start()
    try:
        arrivals = poisson(rate, seconds, FLAT, seed)
        body = make_body("reach", 2_000, seed)
        return describe(run(open_loop(ours.recv(), PATH, body, arrivals, 4.0)), rate)
    finally:
        server.terminate()
        server.join()


@click.command()
@click.option("--rate", "rates", type=float, multiple=True, default=(6_000.0, 12_000.0, 18_000.0))
@click.option("--seconds", default=5.0, show_default=True)
def main(rates: tuple[float, ...], seconds: float) -> None:
    """Say what the client reaches at each rate."""
    click.echo(json.dumps([reach(rate, seconds) for rate in rates], indent=2))


if __name__ == "__main__":
    main()
