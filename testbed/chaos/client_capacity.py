"""Capacity of the load generator itself: ``python -m testbed.chaos.client_capacity``.

The client sends to a minimal server, in a process of its own, that refuses every request. The rate
from which on requests are sent late is the limit of client and server together.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any, cast

import click

from shared.program import run_program
from testbed.chaos.overload import describe, infer_body, tier_client
from testbed.load.arrivals import FLAT, poisson
from testbed.load.generator import open_loop
from testbed.load.http_client import run

_ANSWER = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}"
TIMEOUT_S = 4.0


class _RefuseAll(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, _data: bytes) -> None:
        self._transport.write(_ANSWER)


def _serve(pipe: Connection) -> None:
    async def forever() -> None:
        loop = asyncio.get_running_loop()
        # readable when the parent has ended, in any way: it sends nothing
        loop.add_reader(pipe.fileno(), os._exit, 1)
        server = await loop.create_server(_RefuseAll, "127.0.0.1", 0, backlog=2048)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    run(forever())


def measure_capacity(rate: float, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Send at ``rate`` requests a second and return the figures of `describe`."""
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    server = context.Process(target=_serve, args=(child_end,), daemon=True)
    server.start()
    try:
        client = tier_client(parent_end.recv())
        arrivals = poisson(rate, seconds, FLAT, seed)
        body = infer_body("capacity", 2_000, seed)
        return describe(run(open_loop(client, body, arrivals, TIMEOUT_S)), rate)
    finally:
        server.terminate()
        server.join()


@click.command()
@click.option(
    "--rate",
    "rates",
    type=float,
    multiple=True,
    default=(6_000.0, 12_000.0, 18_000.0),
    show_default=True,
    help="Requests a second, repeatable.",
)
@click.option("--seconds", default=5.0, show_default=True, help="Length of each run in seconds.")
def main(rates: tuple[float, ...], seconds: float) -> None:
    """Print the figures of the client at each rate."""
    click.echo(json.dumps([measure_capacity(rate, seconds) for rate in rates], indent=2))


if __name__ == "__main__":
    run_program(main)
