"""Addresses of services: ``http://HOST:PORT`` or ``https://HOST:PORT``, perhaps with a path."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from shared.errors import InvalidInput

SCHEMES = ("http", "https")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)


def valid_address(url: str) -> str:
    """Return the address of a service; raise `ValueError` that says what to write instead.

    It may have a user and a path, but neither query nor fragment, because paths are added to it.
    The message has host and port at most, since the rest may be a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url.removeprefix("//")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ValueError(f"has a space or a control character in it; write {_example(rest)}")
    if not scheme:
        raise ValueError(f"has no http:// or https:// at its beginning; write {_example(rest)}")
    if scheme.lower() not in SCHEMES:
        raise ValueError(f"must begin with http:// or https://; write {_example(rest)}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"has no valid host or port; write {_example(rest)}") from None
    if not host:
        raise ValueError(f"has no host; write {_example('')}")
    if port == 0:
        raise ValueError(f"has no valid host or port; write {_example('')}")
    if "?" in url or "#" in url:
        raise ValueError(f"has a query or a fragment; write {_example(rest)}")
    return url


def check_address(url: str, option: str) -> str:
    """Return the valid address of a command's option; raise `InvalidInput` for others."""
    try:
        return valid_address(url)
    except ValueError as error:
        raise InvalidInput(f"{option}: the address {error}", field=option) from None


def _example(rest: str) -> str:
    """Return an address with the host and port of ``rest``, where it has a valid one."""
    place = re.split(r"[/?#]", rest.strip().rpartition("@")[2])[0]
    found = _HOST_PORT.fullmatch(place)
    valid = found is not None and int((found[2] or ":0")[1:]) <= 65_535
    return f"http://{place if valid else 'HOST:PORT'}"


Address = Annotated[str, AfterValidator(valid_address)]
"""Address of a service in a settings class."""
