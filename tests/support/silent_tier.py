"""A tier that accepts connections and answers nothing."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

ACCEPT_S = 30.0
PROBES = (b"GET /readyz", b"GET /health")


class SilentTier:
    """Server whose requests stay in flight until the caller gives up."""

    def __enter__(self) -> Self:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(ACCEPT_S)
        self._accepted: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        return self

    def wait_for(self, requests: int) -> None:
        """Wait until so many more requests, each on a connection of its own, have begun.

        Probes of the tier's state do not count.
        """
        while requests:
            connection, _address = self._server.accept()
            self._accepted.append(connection)
            connection.settimeout(ACCEPT_S)
            began = connection.recv(len(PROBES[0]), socket.MSG_WAITALL)
            assert began
            requests -= not began.startswith(PROBES)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection in (self._server, *self._accepted):
            connection.close()
