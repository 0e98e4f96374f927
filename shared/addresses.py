"""Addresses of services, checked when a process starts instead of at its first request."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from shared.errors import InvalidInput

LOCAL_DOMAINS = ("localhost", "local", "internal", "test")
"""Top-level domains that no site on the Internet can have (RFC 6761, RFC 6762, ICANN 2024)."""
EXPECTED = "give http://HOST:PORT or https://HOST:PORT"
MAX_ADDRESSES = 64
"""Most addresses in a list."""
_PLACE = re.compile(
    r"(?:[^/?#\s]*@)?((?:\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5})(?:[/?#]\S*)?", re.ASCII
)
"""Host and port, perhaps after a user and before a path."""


def valid_address(url: str) -> str:
    """Return an address to which paths can be appended; raise `ValueError`, which does not show it.

    It may have a user and a path, but neither query nor fragment.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _problem(f"is not an address; {EXPECTED}") from None
    if any(char.isspace() or not char.isprintable() for char in url):
        raise _problem(f"contains a space or a control character; {EXPECTED}")
    if parts.scheme not in ("http", "https"):
        raise _problem(f"begins with neither http:// nor https://; {_expected(url)}")
    if not host or port == 0:
        raise _problem(f"is not an address; {EXPECTED}")
    if "?" in url or "#" in url:
        raise _problem(f"has a query or a fragment, to which no path can be added; {EXPECTED}")
    return url


def _expected(url: str) -> str:
    """Return what to give in place of an address without http://: its host and port, no more."""
    place = _PLACE.fullmatch(url.rpartition("//")[2])
    if place is None or int(place[1].rpartition(":")[2]) > 65_535:
        return EXPECTED
    return f"give http://{place[1]}"


def _problem(text: str) -> PydanticCustomError:
    return PydanticCustomError("address", text)


def check_address(url: str, option: str) -> str:
    """Return a valid address; raise `InvalidInput` that names the option."""
    try:
        return valid_address(url)
    except ValueError as error:
        raise InvalidInput(f"{option}: {error}", field=option) from None


def split_addresses(urls: str) -> tuple[str, ...]:
    """Return the addresses of a list with commas, each without spaces around it."""
    return tuple(url.strip() for url in urls.split(","))


def valid_addresses(urls: str) -> str:
    """Return a list of addresses with commas; raise `ValueError` if one is wrong or repeated."""
    each = [valid_address(url).rstrip("/") for url in split_addresses(urls)]
    if len(set(each)) < len(each):
        raise _problem("has the same address twice; give each replica once")
    if len(each) > MAX_ADDRESSES:
        raise _problem(f"has more than {MAX_ADDRESSES} addresses; give one name that has them")
    return urls


def split_origins(origins: str) -> tuple[str, ...]:
    """Return the origins of a list with commas, in small letters as browsers send them."""
    return tuple(filter(None, (origin.strip().lower() for origin in origins.split(","))))


def origin_of(url: str) -> str:
    """Return the origin of an address: scheme, host and port, without the scheme's usual port."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, usual) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def valid_origins(origins: str) -> str:
    """Return a list of origins with commas; raise `ValueError` if one is none."""
    for origin in split_origins(origins):
        if valid_address(origin) != origin_of(origin):
            raise _problem(
                "is not a list of origins as browsers send them: scheme, host and port, without a "
                "path or the usual port 80 or 443; give https://HOST or https://HOST:PORT"
            )
    return origins


Addresses = Annotated[str, AfterValidator(valid_addresses)]
"""Addresses of the replicas of a service, with commas between them."""
Address = Annotated[str, AfterValidator(valid_address)]
"""Address of a service, such as ``http://127.0.0.1:8700``."""


def host_of(header: bytes) -> str:
    """Return the host of a ``Host`` header, without its port and the brackets of an address."""
    text = header.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


def is_local(host: str) -> bool:
    """Return True for an IP address and for a name that no site on the Internet can have."""
    if "." not in host and ":" not in host:
        return True
    if host.rpartition(".")[2] in LOCAL_DOMAINS:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
