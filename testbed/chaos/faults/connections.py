"""Connections of clients that send their request slowly, or never finish it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

from testbed.chaos.fault_injector import FaultInjector

CONNECTIONS = 300
"""More than the calls that a mobile has in flight at once."""
INTERVAL_S = 0.1
TIMEOUT_S = 2.0
HEAD = b"GET /healthz HTTP/1.1\r\nhost: chaos\r\n" + b"x: 1\r\n" * 50
UNFINISHED = {
    None: b"",
    "head": b"POST / HTTP/1.1\r\nhost: chaos\r\n",
    "body": b"POST %b HTTP/1.1\r\nhost: chaos\r\ncontent-type: application/json\r\n"
    b"content-length: 100\r\n\r\n{",
}
"""Bytes that a client sends before it falls silent, by the spec of the fault ``half-open``."""
PATHS = {"mobile": b"/v1/classify", "ledger": b"/v1/entries"}
INFER = b"/v1/infer"


@contextmanager
def slow_heads(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Send the heads of `CONNECTIONS` requests to a role byte by byte, until the end."""
    done = threading.Event()

    def trickle(connections: list[socket.socket]) -> None:
        for byte in HEAD:
            if done.wait(INTERVAL_S):
                return
            for connection in connections:
                with suppress(OSError):  # the server may close it, and the role may be down
                    connection.send(bytes([byte]))

    with _connections(injector, name) as connections:
        sender = threading.Thread(target=trickle, args=[connections], name=f"slow heads {name}")
        sender.start()
        try:
            yield
        finally:
            done.set()
            sender.join()


@contextmanager
def half_open(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Open `CONNECTIONS` to a role whose clients fall silent, until the end.

    ``spec`` says after what: nothing, the ``head`` begun, or the ``body`` begun.
    """
    begun = UNFINISHED[spec]
    if spec == "body":
        begun %= PATHS.get(name, INFER)
    with _connections(injector, name) as connections:
        for connection in connections:
            with suppress(OSError):
                connection.send(begun)
        yield


@contextmanager
def _connections(injector: FaultInjector, name: str) -> Iterator[list[socket.socket]]:
    """Open connections to a role, fewer if it is down; close them at the end."""
    parts = urlsplit(injector.url(name))
    assert parts.hostname is not None
    assert parts.port is not None
    with ExitStack() as stack:
        opened: list[socket.socket] = []
        with suppress(OSError):
            for _ in range(CONNECTIONS):
                address = (parts.hostname, parts.port)
                connection = stack.enter_context(socket.create_connection(address, TIMEOUT_S))
                connection.setblocking(False)
                opened.append(connection)
        yield opened
