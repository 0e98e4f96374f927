"""Free TCP ports of the loopback interface."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from shared.errors import DimeeError


def free_ports(count: int) -> list[int]:
    """Return ``count`` different loopback ports on which nothing listens at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def is_free(port: int) -> bool:
    """Return whether a server can listen on this loopback port.

    Raises `DimeeError` if the machine has no loopback address.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise DimeeError(
                    "127.0.0.1 is not an address of this machine; the testbed needs it: "
                    "ip address add 127.0.0.1/8 dev lo"
                ) from None
            return False
    return True
