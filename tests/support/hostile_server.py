"""A TCP server on loopback that resets, floods, and sends garbage and endless answers."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

Behaviour = Callable[[socket.socket, bytes, int], None]
"""Answers one request on a connection; gets the request's body and the connection's number."""


def http(body: bytes, *lines: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Return a response; ``length`` is the declared length if it is not the body's."""
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body) if length is None else length}"]
    return "\r\n".join([*head, *lines]).encode() + b"\r\n\r\n" + body


def reset(connection: socket.socket) -> None:
    """Close a connection with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def sends(data: bytes, then_reset: bool = False) -> Behaviour:
    """Send ``data`` and close the connection."""

    def behave(connection: socket.socket, _body: bytes, _number: int) -> None:
        connection.sendall(data)
        (reset if then_reset else socket.socket.close)(connection)

    return behave


def sends_without_end(head: bytes, again: bytes) -> Behaviour:
    """Send ``head``, then ``again`` until the client closes the connection."""

    def behave(connection: socket.socket, _body: bytes, _number: int) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(again)

    return behave


def answers_nothing(connection: socket.socket, _body: bytes, _number: int) -> None:
    """Wait until the client closes the connection."""
    while connection.recv(65536):
        pass


_HEAD = http(b"", length=100_000_000)
_BOMB = gzip.compress(b" " * 50_000_000, compresslevel=1)
_DEEP = b"[" * 30_000
_ERROR = {"code": "not_found", "message": "no such request"}
BEHAVIOURS: dict[str, Behaviour] = {
    "closes without an answer": sends(b""),
    "resets without an answer": sends(b"", then_reset=True),
    "resets within the status line": sends(b"HTTP/1.", then_reset=True),
    "closes within the head": sends(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "resets within the body": sends(http(b"{", length=900), then_reset=True),
    "closes within the body": sends(http(b'{"attempt_id":', length=900)),
    "never answers": answers_nothing,
    "sends garbage": sends(bytes(range(256)) * 8),
    "sends NUL bytes": sends(b"\0" * 4096),
    "sends HTTP/0.9": sends(b"<html>hello</html>"),
    "declares a wrong length": sends(http(b"{}", length=1)),
    "declares a negative length": sends(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}"),
    "declares two lengths": sends(http(b"{}", "content-length: 3")),
    "declares no number as length": sends(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n{}"),
    "sends a huge header": sends_without_end(b"HTTP/1.1 200 OK\r\nx: ", b"a" * 65536),
    "sends endless headers": sends_without_end(b"HTTP/1.1 200 OK\r\n", b"x: a\r\n" * 9000),
    "sends an endless body": sends_without_end(_HEAD, b" " * 65536),
    "sends an endless body without a length": sends_without_end(
        b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536
    ),
    "sends endless chunks": sends_without_end(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 9000
    ),
    "sends garbage as chunks": sends(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n"
    ),
    "sends an unknown transfer coding": sends(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: brotli\r\n\r\n{}"
    ),
    "sends a compressed bomb": sends(http(_BOMB, "content-encoding: gzip")),
    "sends a body that is not what it declares": sends(http(b"{}", "content-encoding: gzip")),
    "redirects to itself": sends(http(b"", "location: /v1/infer", status="307 Temporary Redirect")),
    "floods with 100 Continue": sends_without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
    "floods with 103 Early Hints": sends_without_end(b"", b"HTTP/1.1 103 E\r\na: b\r\n\r\n" * 99),
    "switches protocols": sends(b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\n\r\n" + b"\0" * 99),
    "answers 204": sends(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "answers 206": sends(http(b"{}", status="206 Partial Content")),
    "answers status 999": sends(http(b"{}", status="999 X")),
    "answers 404 in our own shape": sends(
        http(json.dumps({"error": _ERROR}).encode(), status="404 Not Found")
    ),
    "answers 401 as HTML": sends(http(b"<html>sign in</html>", status="401 Unauthorized")),
    "answers deep JSON": sends(http(_DEEP)),
    "answers a deep error": sends(http(_DEEP, status="500 Internal Server Error")),
    "answers a huge error": sends(
        http(b'{"error":{"message":"' + b"a" * 900_000 + b'"}}', status="503 Service Unavailable")
    ),
    "answers no UTF-8": sends(http(b'{"label":"\xff"}')),
    "answers a huge number": sends(http(b'{"tokens":' + b"9" * 100_000 + b"}")),
}
"""Behaviours by name; every one of them is a failed attempt of the tier."""


class HostileServer:
    """Server that reads each request and then behaves as it is told.

    ``behave`` is called again for each further request of a connection that is still open. With
    ``reads`` False it is called as soon as a connection is accepted.
    """

    def __init__(self, behave: Behaviour, reads: bool = True) -> None:
        self._behave = behave
        self._reads = reads
        self.bodies: list[bytes] = []
        """Body of each request that was read."""
        self.connections = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with suppress(OSError):  # closed by the end of the test
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                if self._reads:
                    arguments = (connection, self.connections)
                    threading.Thread(target=self._serve, args=arguments, daemon=True).start()
                else:
                    self._behave(connection, b"", self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError), connection:
            for body in _requests(connection):
                self.bodies.append(body)
                self._behave(connection, body, number)


def _requests(connection: socket.socket) -> Iterator[bytes]:
    """Yield the body of each request until the connection ends."""
    data = b""
    while connection.fileno() >= 0:
        while b"\r\n\r\n" not in data:
            received = connection.recv(65536)
            if not received:
                return
            data += received
        head, _, data = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(data) < length:
            received = connection.recv(65536)
            if not received:
                return
            data += received
        yield data[:length]
        data = data[length:]
