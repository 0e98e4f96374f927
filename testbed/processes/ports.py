"""Free TCP ports of the loopback interface."""

from __future__ import annotations

import errno
import os
import random
import socket
import sys
import threading
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from pathlib import Path

from shared.errors import DimeeError

FIRST_PORT, LAST_PORT = 10_000, 65_535
LEAST_CHOICE = 1_000
"""Least number of ports outside the system's own range; with fewer, that range is used as well."""
MAX_RESERVED = 100
"""Ports that one process reserves at most, each with an open socket; the oldest is given up."""


class PortReservations:
    """Ports that this process has chosen; other processes of this user choose different ones.

    A server starts seconds after its port was chosen. Until then nothing listens on the port, so
    that another process would find it free as well. A reservation is an abstract Unix socket with
    the port in its name, which leaves no file, and which the system closes when the process ends.
    Other systems than Linux have none: there a port is only checked. Thread-safe.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._ports = _ports()
        self._random = random.Random()
        self._reserved: OrderedDict[int, socket.socket | None] = OrderedDict()
        self._lock = threading.Lock()

    def choose(self, count: int) -> list[int]:
        """Return ``count`` different ports, reserved for this process.

        Raises `DimeeError` if there are not enough.
        """
        chosen: list[int] = []
        with self._lock:
            for port in self._random.sample(self._ports, len(self._ports)):
                if len(chosen) == count:
                    break
                if port not in self._reserved and is_free(port) and self._reserve(port):
                    chosen.append(port)
        if len(chosen) < count:
            raise DimeeError(
                f"{count} ports are needed, but only {len(chosen)} are free; end what uses them"
            )
        return chosen

    def _reserve(self, port: int) -> bool:
        reservation = None
        if sys.platform == "linux":
            reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                reservation.bind(f"\0{self._prefix}-{port}")
            except OSError as error:
                reservation.close()
                if error.errno == errno.EADDRINUSE:
                    return False
                raise
        self._reserved[port] = reservation
        if len(self._reserved) > MAX_RESERVED:
            _, oldest = self._reserved.popitem(last=False)
            if oldest is not None:
                oldest.close()
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
    return PortReservations(f"dimee-port-{os.getuid()}")


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
