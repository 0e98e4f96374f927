"""Sessions of people who have signed in to a page with their token."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from shared.serving.tokens import Token, digest

COOKIE = "dimee_session"
CSRF_HEADER = "x-dimee-dashboard"
"""Header that a call with a session's cookie needs unless it only reads. No form of another site
can send it."""
SESSION_S = 12 * 3600
"""Seconds after which a session ends."""
MAX_SESSIONS = 1_000
MAX_SESSIONS_OF_TOKEN = 20
"""Most sessions at once, of all tokens together and of one; the oldest is ended for a new one."""


@dataclass(frozen=True, slots=True)
class _Session:
    token_sha256: str
    ends: float


class Sessions:
    """Sessions by their random ids, of which only the hashes are kept. For one event loop.

    A session holds no secret: it names the token by its hash. Sessions end with the process.
    ``clock`` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, token: Token) -> str:
        """Begin a session of a token's owner and return its id, for the cookie."""
        self._end_expired()
        own = [key for key, one in self._sessions.items() if one.token_sha256 == token.sha256]
        for key in own[: max(0, len(own) + 1 - MAX_SESSIONS_OF_TOKEN)]:
            del self._sessions[key]
        while len(self._sessions) >= MAX_SESSIONS:
            self._sessions.popitem(last=False)
        session_id = secrets.token_urlsafe(32)
        self._sessions[digest(session_id)] = _Session(token.sha256, self._clock() + SESSION_S)
        return session_id

    def find(self, session_id: str) -> str | None:
        """Return the hash of the session's token; None for an unknown or ended session."""
        session = self._sessions.get(_key(session_id))
        if session is None or self._clock() >= session.ends:
            return None
        return session.token_sha256

    def end(self, session_id: str) -> None:
        """End a session, if there is one with this id."""
        self._sessions.pop(_key(session_id), None)

    def _end_expired(self) -> None:
        now = self._clock()
        while self._sessions and next(iter(self._sessions.values())).ends <= now:
            self._sessions.popitem(last=False)


def _key(session_id: str) -> str:
    # a cookie may hold any characters
    return digest(session_id.encode(errors="replace"))
