"""The IP addresses of a tier's replicas: a name that has several stands for several replicas."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Returns the IP addresses of a host and port, the preferred ones first; raises `OSError`."""


def has_name(url: str) -> bool:
    """Return whether the host of a URL is a name that may have several addresses."""
    host = urlsplit(url).hostname or ""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host != "localhost"
    return False


def has_route(family: int, address: Any) -> bool:
    """Return whether this machine has a route to a socket address. Nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
    except OSError:
        return False
    return True


async def system_addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host by the system's resolver; raise `OSError` without any.

    Those to which this machine has no route, such as IPv6 addresses without IPv6, are left out
    unless there are no others.

    The resolver may take many seconds without a network. It runs in a thread of its own, for which
    the end of the process does not wait.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def set_result(addresses: list[str], error: OSError | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def look_up() -> None:
        addresses: list[str] = []
        failure: OSError | None = None
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            usable = [entry for entry in entries if has_route(entry[0], entry[4])]
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in usable or entries))
        except (OSError, UnicodeError) as error:
            failure = error if isinstance(error, OSError) else OSError(str(error))
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(set_result, addresses, failure)

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    return await found


def one_family(addresses: list[str]) -> list[str]:
    """Return the addresses of the family that has most, or of the first one's.

    A replica with an IPv4 and an IPv6 address would otherwise count as two.
    """
    families: dict[int, list[str]] = defaultdict(list)
    for address in addresses:
        families[ipaddress.ip_address(address.partition("%")[0]).version].append(address)
    return max(families.values(), key=len, default=[])
