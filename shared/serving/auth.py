"""Authentication, scopes and rate limits of a service, in Starlette's authentication middleware."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import TYPE_CHECKING

from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
)
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Message, Receive, Send
from starlette.types import Scope as AsgiScope

from shared.errors import DimeeError, Forbidden, InvalidInput, RateLimited, Unauthorised
from shared.rounding import rounded_up
from shared.serving.host_check import HostCheck
from shared.serving.rate_limit import RateLimit
from shared.serving.responses import error_response
from shared.serving.sessions import COOKIE, CSRF_HEADER, Sessions
from shared.serving.tokens import SCOPES, Scope, Token, TokenFile, read_tokens
from shared.settings import ServiceSettings, is_loopback

if TYPE_CHECKING:
    from fastapi import FastAPI

METRICS_PATH = "/metrics"
"""Path of every service that needs the scope `metrics`, and no other."""
PUBLIC_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths without authentication and rate limit, for the probes of a container platform."""
POLICY_VIOLATION = 1008
"""Close code of a refused websocket (RFC 6455)."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

RequiredScope = Callable[[str, str], Scope | None]
"""Function from method and path to the scope that a token needs; None for a path without
authentication and rate limit, such as a page that holds no data."""


class Principal(BaseUser):
    """The caller of a request: ``display_name`` is its token's name, or its address without one.

    ``charge(count)`` counts further requests against the caller's rate limit. ``token`` is the
    caller's; None without authentication. ``is_valid()`` tells a response that lasts for hours
    whether the caller may still have it.
    """

    def __init__(
        self,
        name: str,
        charge: Callable[[float], None],
        token: Token | None = None,
        is_valid: Callable[[], bool] = lambda: True,
    ) -> None:
        self._name = name
        self.charge = charge
        self.token = token
        self.is_valid = is_valid

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Scopes of the caller; all of them without authentication."""
        return SCOPES if self.token is None else self.token.scopes

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        return self._name


class AuthError(AuthenticationError):
    """A refused request; ``error`` is sent to the caller."""

    def __init__(self, error: DimeeError) -> None:
        super().__init__(error.message)
        self.error = error


def require(scope: Scope) -> RequiredScope:
    """Require the same scope for every path that is not public."""
    return lambda _method, _path: scope


class Authenticator(AuthenticationBackend):
    """Checks a request's bearer token, its scope and the caller's rate limit.

    Without ``tokens`` every caller is accepted and identified by its address. A request with a
    wrong token counts against its address, which also limits guessing. With ``sessions``, the
    cookie of a session is accepted in place of a token; callers without a token or a session may
    call ``open_paths``, which tell them to sign in.
    """

    def __init__(
        self,
        tokens: TokenFile | None,
        limit: RateLimit | None,
        required_scope: RequiredScope,
        sessions: Sessions | None = None,
        open_paths: Container[str] = (),
    ) -> None:
        self._tokens = tokens
        self._limit = limit
        self._required_scope = required_scope
        self._sessions = sessions
        self._open_paths = open_paths

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Principal] | None:
        """Return the caller and its scopes, None for a public path; raise `AuthError`."""
        scope = conn.scope
        if scope["path"] in PUBLIC_PATHS:
            return None
        method = scope.get("method", "GET")
        required = self._scope_of(method, scope["path"])
        if required is None:
            return None
        address = scope.get("client")
        name = str(address[0]) if address else "unknown"
        key = f"client {name}"
        scopes: tuple[Scope, ...] = ()
        token: Token | None = None
        refusal: DimeeError | None = None
        is_valid: Callable[[], bool] = _always_valid
        if self._tokens is not None:
            session_id = None if self._sessions is None else _session_id(conn)
            if scope["path"] in self._open_paths and self._is_anonymous(conn, session_id):
                return None
            if session_id is None:
                secret = _bearer_token(scope)
                token = None if secret is None else self._tokens.find_valid(secret)
                refusal = None if token else _unauthorised(sent_token=secret is not None)
            else:
                token = self._token_of(session_id)
                refusal = _session_refusal(conn, method, token)
            if token is None:
                key = f"address {name}"
            else:
                name, scopes, key = token.name, token.scopes, f"client {token.name}"
                is_valid = partial(self._is_valid, token, session_id)
                if refusal is None and required not in scopes:
                    refusal = Forbidden(
                        f"the token of {name} lacks the scope {required}; use one that has it "
                        "(dimee token list shows them)"
                    )
        charge: Callable[[float], None] = _charge_nothing
        if self._limit is not None:
            wait_s = self._limit.acquire(key)
            if wait_s:
                wait_s = rounded_up(wait_s, 1)
                raise AuthError(
                    RateLimited(
                        f"{name} sends too many requests; try again in {wait_s:.1f} s",
                        retry_after_s=wait_s,
                    )
                )
            charge = partial(self._limit.charge, key)
        if refusal is not None:
            raise AuthError(refusal)
        return AuthCredentials(scopes), Principal(name, charge, token, is_valid)

    def _is_anonymous(self, conn: HTTPConnection, session_id: str | None) -> bool:
        if "authorization" in conn.headers:
            return False
        return session_id is None or self._token_of(session_id) is None

    def _token_of(self, session_id: str) -> Token | None:
        """Return the token that a session was begun with, if both are still valid."""
        assert self._tokens is not None
        assert self._sessions is not None
        sha256 = self._sessions.find(session_id)
        return None if sha256 is None else self._tokens.find_valid_digest(sha256)

    def _is_valid(self, token: Token, session_id: str | None) -> bool:
        assert self._tokens is not None
        if session_id is not None:
            return self._token_of(session_id) is not None
        return self._tokens.find_valid_digest(token.sha256) is not None

    def _scope_of(self, method: str, path: str) -> Scope | None:
        return "metrics" if path == METRICS_PATH else self._required_scope(method, path)


class AuthMiddleware(AuthenticationMiddleware):
    """Starlette's authentication middleware with our error bodies and websocket close code.

    It answers 401 without a valid token, 403 without the scope and 429 above the rate limit, before
    it reads the body.
    """

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Authenticate the request, then call the application or refuse."""
        if scope["type"] == "websocket":
            send = _closing_with_policy_violation(send)
        await super().__call__(scope, receive, send)


def _closing_with_policy_violation(send: Send) -> Send:
    async def send_close(message: Message) -> None:
        if message["type"] == "websocket.close":
            message = {"type": "websocket.close", "code": POLICY_VIOLATION}
        await send(message)

    return send_close


def _charge_nothing(_count: float) -> None:
    return None


def _always_valid() -> bool:
    return True


def _session_id(conn: HTTPConnection) -> str | None:
    """Return the session of a request's cookie; a token is used in its place if one is sent."""
    if "authorization" in conn.headers:
        return None
    return conn.cookies.get(COOKIE) or None


def _session_refusal(conn: HTTPConnection, method: str, token: Token | None) -> DimeeError | None:
    if token is None:
        return Unauthorised("the session has ended; sign in again")
    # a browser sends the cookie by itself, but this header only from a script of the page
    if method not in SAFE_METHODS and conn.headers.get(CSRF_HEADER) != "1":
        return Forbidden(f"a call with a session's cookie needs the header {CSRF_HEADER}: 1")
    return None


def _bearer_token(scope: AsgiScope) -> bytes | None:
    """Return the bearer token; None without one or with several Authorization headers."""
    sent = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(sent) != 1:
        return None
    scheme, _, secret = sent[0].partition(b" ")
    secret = secret.strip()
    return secret if scheme.lower() == b"bearer" and secret else None


def _unauthorised(sent_token: bool) -> Unauthorised:
    if sent_token:
        return Unauthorised(
            "the token is unknown, revoked, or not valid now; create a new one: dimee token new"
        )
    return Unauthorised(
        "a token is needed: send the header Authorization: Bearer TOKEN (dimee's own clients "
        "read it from DIMEE_TOKEN or DIMEE_TOKEN_FILE)"
    )


def _error_response(_: HTTPConnection, refused: AuthenticationError) -> Response:
    assert isinstance(refused, AuthError)
    response = error_response(refused.error)
    if isinstance(refused.error, Unauthorised):
        response.headers["www-authenticate"] = 'Bearer realm="dimee"'
    return response


def install_auth(
    app: FastAPI,
    settings: ServiceSettings,
    required_scope: RequiredScope,
    sessions: Sessions | None = None,
    open_paths: Container[str] = (),
) -> Authenticator | None:
    """Add the authentication and rate limit of ``settings`` before all middleware added so far.

    With ``sessions``, their cookies are accepted too; for ``open_paths`` see `Authenticator`.
    Without tokens, `HostCheck` refuses public host names.

    Return the authenticator, or None if the settings have neither tokens nor a rate limit. Raise
    `InvalidInput` if the token file cannot be read.
    """
    if settings.tokens is None:
        names = (name.strip() for name in settings.allowed_hosts.split(","))
        app.add_middleware(HostCheck, allowed=filter(None, names))
    if settings.tokens is None and settings.rate_limit is None:
        return None
    tokens = None if settings.tokens is None else TokenFile(settings.tokens)
    per_s = settings.rate_limit
    limit = None if per_s is None else RateLimit(per_s, settings.rate_burst)
    authenticator = Authenticator(tokens, limit, required_scope, sessions, open_paths)
    app.add_middleware(AuthMiddleware, backend=authenticator, on_error=_error_response)
    return authenticator


def principal_of(request: HTTPConnection) -> Principal:
    """Return the caller of a request; without authentication its name is its address."""
    user = request.scope.get("user")
    if isinstance(user, Principal):
        return user
    return Principal(request.client.host if request.client else "unknown", _charge_nothing)


def refuse_unprotected_service(settings: ServiceSettings) -> None:
    """Raise `InvalidInput` if other machines can reach the service and no tokens are set.

    Also raises it if the token file cannot be read. Call it before the service opens anything.
    """
    address = settings.publish_address or settings.host
    if settings.tokens is not None:
        read_tokens(settings.tokens)
    elif not is_loopback(address):
        raise InvalidInput(
            f"settings: other machines can reach {address or 'every address'} and no tokens are "
            "set; create some (dimee token new NAME --scope …) and name the file in DIMEE_TOKENS, "
            "or listen on 127.0.0.1"
        )
