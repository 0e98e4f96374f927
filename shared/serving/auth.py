"""The door of a service: who comes in, for what, and how often. Plain ASGI, before any body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from shared.errors import DimeeError, Forbidden, InvalidInput, RateLimited, Unauthorised
from shared.serving.rate_limit import RateLimit
from shared.serving.tokens import Scope, TokenFile, read_tokens
from shared.settings import ServiceSettings, is_loopback

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import HTTPConnection

OPEN = frozenset({"/healthz", "/readyz"})
"""What needs no token: whether a process is alive and ready, which probes ask."""
VISITOR = "dimee.visitor"

Needs = Callable[[str, str], Scope]
"""The scope that a method and a path need."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the token's name, else the address; ``charge`` counts further requests."""

    client: str
    charge: Callable[[float], None]


def always(scope: Scope) -> Needs:
    """One scope for everything that is not open."""
    return lambda _method, _path: scope


class Authenticator:
    """Who comes in, and how often: without ``tokens`` everybody, and a client is its address.

    A wrong token counts for the address, so that guessing is limited too.
    """

    def __init__(self, tokens: TokenFile | None, limit: RateLimit | None, needs: Needs) -> None:
        self._tokens = tokens
        self._limit = limit
        self._needs = needs

    def meet(self, scope: AsgiScope) -> Principal | DimeeError:
        """Who asks, or why it stays outside; asked again of the same request, the same.

        A request counts once, whoever asks first: the protocol or the middleware.
        """
        if VISITOR not in scope:
            try:
                scope[VISITOR] = self._enter(scope)
            except DimeeError as error:
                scope[VISITOR] = error
        met: Principal | DimeeError = scope[VISITOR]
        return met

    def _enter(self, scope: AsgiScope) -> Principal:
        address = scope.get("client")
        client = str(address[0]) if address else "unknown"
        refusal: DimeeError | None = None
        if self._tokens is not None:
            secret = _secret(scope)
            token = None if secret is None else self._tokens.admit(secret)
            if token is None:
                refusal = _unauthorised(shown=secret is not None)
            else:
                client = token.name
                needed = self._needs(scope.get("method", "GET"), scope["path"])
                if needed not in token.scopes:
                    refusal = Forbidden(
                        f"the token of {token.name} lacks the scope {needed}; use one that has it "
                        "(dimee token list shows them)"
                    )
        limit = self._limit
        if limit is None:
            charge: Callable[[float], None] = _for_free
        else:
            key = f"{'address' if isinstance(refusal, Unauthorised) else 'client'} {client}"
            waits_s = limit.take(key)
            if waits_s:
                raise RateLimited(
                    f"{client} asks too often; try again in {waits_s:.1f} s",
                    retry_after_s=round(max(waits_s, 0.1), 1),
                )

            def charge(more: float) -> None:
                limit.charge(key, more)

        if refusal is not None:
            raise refusal
        return Principal(client, charge)


class AuthMiddleware:
    """ASGI middleware: 401 without a valid token, 403 without the scope, 429 too often."""

    def __init__(self, app: ASGIApp, door: Authenticator) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] == "lifespan" or scope.get("path") in OPEN:
            await self._app(scope, receive, send)
            return
        met = self._door.meet(scope)
        if isinstance(met, DimeeError):
            await _turn_away(met, scope, receive, send)
            return
        await self._app(scope, receive, send)


def _for_free(_more: float) -> None:
    return None


def _secret(scope: AsgiScope) -> bytes | None:
    """The bearer token that is shown; None where there is none, or more than one header."""
    shown = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(shown) != 1:
        return None
    scheme, _, secret = shown[0].partition(b" ")
    secret = secret.strip()
    return secret if scheme.lower() == b"bearer" and secret else None


def _unauthorised(shown: bool) -> Unauthorised:
    if shown:
        return Unauthorised(
            "the token is unknown here, revoked, or not valid now; get a new one: dimee token new"
        )
    return Unauthorised(
        "a token is needed: send the header Authorization: Bearer TOKEN (dimee's own callers "
        "take it from DIMEE_TOKEN or DIMEE_TOKEN_FILE)"
    )


async def _turn_away(error: DimeeError, scope: AsgiScope, receive: Receive, send: Send) -> None:
    from shared.serving.server import error_response

    if scope["type"] != "http":  # a websocket: there are none here
        await send({"type": "websocket.close", "code": 1008})
        return
    response = error_response(error)
    if isinstance(error, Unauthorised):
        response.headers["www-authenticate"] = 'Bearer realm="dimee"'
    await response(scope, receive, send)


def install_auth(app: FastAPI, settings: ServiceSettings, needs: Needs) -> Authenticator | None:
    """Put the door that the settings ask for before everything else that is installed so far.

    Returns it; None where everybody may come in. Raises `InvalidInput` where the file of tokens
    cannot be read.
    """
    if settings.tokens is None and settings.rate_limit is None:
        return None
    tokens = None if settings.tokens is None else TokenFile(settings.tokens)
    per_s = settings.rate_limit
    limit = None if per_s is None else RateLimit(per_s, settings.rate_burst)
    door = Authenticator(tokens, limit, needs)
    app.add_middleware(AuthMiddleware, door=door)
    return door


def principal_of(message: HTTPConnection) -> Principal:
    """Who asks; where there is no door, the address."""
    visitor = message.scope.get(VISITOR)
    if isinstance(visitor, Principal):
        return visitor
    return Principal(message.client.host if message.client else "unknown", _for_free)


def refuse_unprotected_service(settings: ServiceSettings) -> None:
    """Raise `InvalidInput` where others can reach a service that asks nobody for a token.

    Also where the file of tokens cannot be read: before anything is opened.
    """
    where = settings.publish_address or settings.host
    if settings.tokens is not None:
        read_tokens(settings.tokens)
    elif not is_loopback(where):
        raise InvalidInput(
            f"settings: {where or 'every address'} can be reached from elsewhere and no tokens are "
            "set; write some (dimee token new NAME --scope …) and name the file in DIMEE_TOKENS, "
            "or listen on 127.0.0.1"
        )
