"""Refuses requests whose ``Host`` header has a public host name.

Without tokens, a service answers every caller on its machine, also a browser. A page of another
site can make its own host name resolve to 127.0.0.1 (DNS rebinding); the browser then takes the
service for a part of that site, and lets the page read the answers. The ``Host`` header still has
the name of the site.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from shared.addresses import host_of, is_local
from shared.errors import Forbidden
from shared.serving.responses import send_error

_MAX_ACCEPTED = 100


class HostCheck:
    """ASGI middleware that answers 403 if the ``Host`` header has a public host name.

    It accepts IP addresses, names without a dot, such as ``localhost`` or a compose service, names
    in `LOCAL_DOMAINS` of `shared.addresses`, the names in ``allowed``, and requests without the
    header, which no browser sends.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str] = ()) -> None:
        self._app = app
        self._allowed = frozenset(name.lower() for name in allowed)
        self._accepted: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, or refuse the request."""
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"host" and value not in self._accepted and not self._accepts(value):
                    await send_error(send, _refusal(value))
                    return
        await self._app(scope, receive, send)

    def _accepts(self, header: bytes) -> bool:
        host = host_of(header)
        accepts = host in self._allowed or is_local(host)
        if accepts and len(self._accepted) < _MAX_ACCEPTED:
            self._accepted.add(header)
        return accepts


def _refusal(header: bytes) -> Forbidden:
    shown = header.decode("latin-1")[:100]
    return Forbidden(
        f"host: this service has no tokens, so it does not answer at {shown!r}; use its IP address "
        "or localhost, name the host in DIMEE_ALLOWED_HOSTS, or use tokens (dimee token new)",
        field="host",
    )
