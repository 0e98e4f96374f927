"""Redaction of secrets: URLs and exceptions as they may appear outside the process."""

from __future__ import annotations

import re
import traceback
from urllib.parse import urlsplit

UNREADABLE_URL = "(an address that cannot be read)"
_URL = re.compile(r"\b(?:https?|postgres(?:ql)?(?:\+\w+)?)://[^\s\"'<>]+", re.IGNORECASE)
# up to the last @, because a password may contain one, and a slash
_USER = re.compile(r"(?<=://)[^\s\"'<>]*@")
_VALUE = re.compile(
    r"\b((?:ssl)?password|passwd|pwd|passphrase|secret|(?:\w*_)?token|(?:\w*[-_])?key|sig|signature)"
    r"=[^\s&;\"'<>#]+",
    re.IGNORECASE,
)


def without_credentials(url: str) -> str:
    """Return scheme, host and port of an address, and ``/…`` in place of a path.

    User name, password, query and fragment are left out. So is the path, because keys of proxies
    and webhooks stand there. The result of a text that is no URL contains nothing of it.

    ::

        without_credentials("https://me:secret@ledger.example:8700/key?key=secret")
        # "https://ledger.example:8700/…"
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return UNREADABLE_URL
    if not host or not parts.scheme:
        return UNREADABLE_URL
    host = f"[{host}]" if ":" in host else host
    path = "/…" if parts.path.strip("/") else ""
    return f"{parts.scheme}://{host}{f':{port}' if port is not None else ''}{path}"


def redact(text: str) -> str:
    """Return a message without the credentials in its URLs and without ``password=…`` and the like.

    It is for messages of other libraries and for logs. An address of the settings is shown by
    `without_credentials`, which also leaves out its path.
    """
    if "://" in text:
        text = _USER.sub("", text)
    if "=" in text:
        text = _VALUE.sub(r"\1=…", text)
    return text


def redact_urls(text: str) -> str:
    """Return a text, such as a command, with every address in it shown by `without_credentials`."""
    return redact(_URL.sub(lambda url: without_credentials(url[0]), text))


def has_password(url: str) -> bool:
    """Return True if an address contains a password, also as ``password=…``."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return False
    return bool(password) or _VALUE.search(url) is not None


def redacted(error: BaseException) -> str:
    """Return the classes and code locations of an exception and its causes.

    The result contains no message and no value.
    """
    parts = []
    current: BaseException | None = error
    while current is not None:
        frames = traceback.extract_tb(current.__traceback__)
        locations = "".join(f"\n  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
        parts.append(f"{type(current).__module__}.{type(current).__qualname__}{locations}")
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return "\ncaused by ".join(parts)
