"""Free TCP ports of the loopback interface."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import tempfile
import threading
from collections import deque
from contextlib import suppress
from functools import cache
from pathlib import Path

from shared.errors import DimeeError

FIRST_PORT, LAST_PORT = 10_000, 65_535
LEAST_CHOICE = 1_000
"""Least number of ports outside the system's own range; with fewer, that range is used as well."""
MAX_RESERVED = 2_000
"""Ports that one process reserves at most; it gives up the oldest reservation first."""


class PortReservations:
    """Ports that this process has chosen; other processes of this user choose different ones.

    A server starts seconds after its port was chosen. Until then nothing listens on the port, so
    that another process would find it free as well. A reservation is a POSIX lock of one byte of
    ``file``; the system drops it when the process ends. Thread-safe.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ports = _ports()
        self._random = random.Random()
        self._descriptor: int | None = None
        self._process = 0
        self._reserved: deque[int] = deque()
        self._taken: set[int] = set()
        self._lock = threading.Lock()

    def choose(self, count: int) -> list[int]:
        """Return ``count`` different ports, reserved for this process.

        Raises `DimeeError` if there are not enough.
        """
        chosen: list[int] = []
        with self._lock:
            self._open()
            for port in self._random.sample(self._ports, len(self._ports)):
                if len(chosen) == count:
                    break
                if port not in self._taken and is_free(port) and self._reserve(port):
                    chosen.append(port)
        if len(chosen) < count:
            raise DimeeError(
                f"{count} ports are needed, but only {len(chosen)} are free; end what uses them"
            )
        return chosen

    def _open(self) -> None:
        # a child of fork has its parent's descriptor, but none of its locks
        if self._descriptor is None or self._process != os.getpid():
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            self._process = os.getpid()
            self._reserved.clear()
            self._taken.clear()

    def _reserve(self, port: int) -> bool:
        assert self._descriptor is not None
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        self._reserved.append(port)
        self._taken.add(port)
        if len(self._reserved) > MAX_RESERVED:
            oldest = self._reserved.popleft()
            self._taken.discard(oldest)
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, oldest)
        return True


def _ports() -> list[int]:
    """Return the ports that the system does not give to clients and to servers of port 0."""
    low, high = 32_768, 60_999
    with suppress(OSError, ValueError):
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    every = range(FIRST_PORT, LAST_PORT + 1)
    outside = [port for port in every if not low <= port <= high]
    return outside if len(outside) >= LEAST_CHOICE else list(every)


@cache
def _reservations() -> PortReservations:
    return PortReservations(Path(tempfile.gettempdir()) / f"dimee-ports-{os.getuid()}")


def free_ports(count: int) -> list[int]:
    """Return ``count`` different loopback ports on which nothing listens at the moment.

    They are reserved for this process (`PortReservations`), and lie outside the range from which
    the system chooses the ports of outgoing connections.
    """
    return _reservations().choose(count)


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
