"""The errors of dimee, with the HTTP status and code of each.

::

    DimeeError
    ├── InvalidInput            422  the caller's text or setting is wrong
    │   ├── TooLarge            413  more than a limit allows
    │   │   └── HeadTooLarge    431  the headers of an HTTP request are too large
    │   ├── BadRequest          400  the request is not valid HTTP
    │   ├── RequestTimeout      408  the request took too long to arrive
    │   └── BundleMismatch      409  caller and tier run different models
    ├── NotFound                404  the ledger has no such request
    ├── Unauthorised            401  there is no valid token
    ├── Forbidden               403  the token lacks the scope
    ├── BundleError             503  a bundle is missing, corrupt or cannot be used
    ├── MissingExtra            503  an optional part of the installation is missing
    ├── LedgerUnavailable       503  the ledger cannot be read
    ├── ClientUnusable          503  the client is closed, or belongs to another process
    ├── PolicyFailed            500  a policy raised an error or made an invalid decision
    └── TierError                    an attempt at a tier returned no answer
        ├── Overloaded          429  the tier's queue is full
        │   └── RateLimited     429  the caller exceeds its rate limit
        ├── AttemptRepeated     409  the tier was sent this attempt before
        ├── NotAdmitted         503  the tier rejects this caller's credentials
        ├── NotReady            503  the tier has not loaded its bundle
        ├── TierUnreachable     503  no connection to the tier, or it broke
        ├── DeadlineExceeded    504  the deadline passed
        └── TierFailed          500  an error inside the tier

The client raises the class that the server raised (`from_payload`). A message is one sentence that
says what is wrong and what to do. Over HTTP, any other exception becomes `INTERNAL`, without
details.
"""

from __future__ import annotations

from copy import copy
from typing import Any, ClassVar, Self

from shared.redaction import redact
from shared.short_line import short_line

_MAX_MESSAGE_CHARS = 2_000
_MAX_FIELD_CHARS = 100
_MAX_ID_CHARS = 64
_MAX_NUMBER = 1e15


class DimeeError(Exception):
    """Base of all errors.

    ``message`` is redacted (`shared.redaction`), because callers, logs and reports get it.
    ``field`` is the name of the wrong input and ``limit`` its bound, where there is one.
    ``retry_after_s`` is the time after which a retry is useful. ``request_id`` is the request that
    ended with the error, whose attempts the ledger has; None if no request began.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        limit: float | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.message = redact(message)
        super().__init__(self.message)
        self.field = field
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.request_id: str | None = None

    def of_request(self, request_id: str | None) -> Self:
        """Return a copy that names the request: several requests may fail with one error."""
        copied = copy(self)
        copied.request_id = request_id
        copied.__cause__ = self.__cause__
        return copied

    def payload(self) -> dict[str, Any]:
        """Return the body: ``{"error": {code, message, …}}`` with the other facts that are set."""
        content = {
            "code": self.code,
            "message": self.message,
            "field": self.field,
            "limit": self.limit,
            "retry_after_s": self.retry_after_s,
            "request_id": self.request_id,
        }
        return {"error": {name: value for name, value in content.items() if value is not None}}


class InvalidInput(DimeeError):
    """A text or a setting is wrong; the message names the field and the limit."""

    status = 422
    code = "invalid_input"


class TooLarge(InvalidInput):
    """More text, or more texts, than a limit allows."""

    status = 413
    code = "too_large"


class HeadTooLarge(TooLarge):
    """The headers of an HTTP request are larger, or more, than a limit allows."""

    status = 431
    code = "head_too_large"


class BadRequest(InvalidInput):
    """The request is not valid HTTP, or uses a part of HTTP that the services do not support."""

    status = 400
    code = "bad_request"


class RequestTimeout(InvalidInput):
    """The head or the body of an HTTP request did not arrive in time."""

    status = 408
    code = "request_timeout"


class BundleMismatch(InvalidInput):
    """The caller and the tier have different bundles, whose layers do not fit together."""

    status = 409
    code = "bundle_mismatch"


class NotFound(DimeeError):
    """The ledger has no such request."""

    status = 404
    code = "not_found"


class Unauthorised(DimeeError):
    """The request has no valid token."""

    status = 401
    code = "unauthorised"


class Forbidden(DimeeError):
    """The caller's token lacks a scope, or a service without tokens is called by a public name."""

    status = 403
    code = "forbidden"


class BundleError(DimeeError):
    """A bundle is missing, corrupt or does not fit the settings; raised at start."""

    status = 503
    code = "bundle_invalid"


class MissingExtra(DimeeError):
    """A command needs an optional part of the installation."""

    status = 503
    code = "missing_extra"


class LedgerUnavailable(DimeeError):
    """The ledger cannot be reached or read."""

    status = 503
    code = "ledger_unavailable"


class ClientUnusable(DimeeError, RuntimeError):
    """A `MobileClient` is closed, or the call comes from where it cannot be used.

    It belongs to the process that created it.
    """

    status = 503
    code = "client_unusable"


class PolicyFailed(DimeeError):
    """A routing policy that is not built in raised an error or made an invalid decision.

    The message names the policy; the log says what it did.
    """

    status = 500
    code = "policy_failed"


class TierError(DimeeError):
    """An attempt at a tier returned no answer."""

    code = "tier_failed"


class Overloaded(TierError):
    """The tier's queue is full; try again after ``retry_after_s``."""

    status = 429
    code = "overloaded"


class RateLimited(Overloaded):
    """The caller exceeds its rate limit; try again after ``retry_after_s``."""

    code = "rate_limited"


class AttemptRepeated(TierError):
    """The tier was sent an attempt with this identifier before, and has an entry of it."""

    status = 409
    code = "attempt_repeated"


class NotAdmitted(TierError):
    """The tier rejects the credentials of the process that calls it.

    It is not `Unauthorised`, because the credentials of the original request are valid.
    """

    status = 503
    code = "not_admitted"


class NotReady(TierError):
    """The tier has not loaded its bundle yet."""

    status = 503
    code = "not_ready"


class TierUnreachable(TierError):
    """There is no connection to the tier, or it broke before an answer."""

    status = 503
    code = "tier_unreachable"


class DeadlineExceeded(TierError):
    """The deadline passed before an answer."""

    status = 504
    code = "deadline_exceeded"


class TierFailed(TierError):
    """An error inside the tier; details are in its log only."""

    status = 500
    code = "tier_failed"


INTERNAL = {"error": {"code": "internal", "message": "internal error; see the server's log"}}

_BY_CODE: dict[str, type[DimeeError]] = {
    kind.code: kind
    for kind in (
        InvalidInput,
        TooLarge,
        HeadTooLarge,
        BadRequest,
        RequestTimeout,
        BundleMismatch,
        NotFound,
        Unauthorised,
        Forbidden,
        BundleError,
        MissingExtra,
        LedgerUnavailable,
        ClientUnusable,
        PolicyFailed,
        Overloaded,
        RateLimited,
        AttemptRepeated,
        NotAdmitted,
        NotReady,
        TierUnreachable,
        DeadlineExceeded,
        TierFailed,
    )
}


def is_error_document(body: object, status: int) -> bool:
    """Return whether a body with this status has the form of `DimeeError.payload` or `INTERNAL`.

    The errors of load balancers and of other servers are not, also if they are JSON.
    """
    error = body.get("error") if isinstance(body, dict) and len(body) == 1 else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return False
    code = error.get("code")
    if code == INTERNAL["error"]["code"]:
        return status == 500
    kind = _BY_CODE.get(code) if isinstance(code, str) else None
    return kind is not None and kind.status == status


def from_payload(body: object, status: int) -> DimeeError:
    """Return the error that a server sent; `TierFailed` for an unknown one.

    The server may be any server: the message is cut, and a field, limit or time that is not one is
    left out.
    """
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return TierFailed(f"the server returned status {status} without a known error")
    code = error.get("code")
    kind = _BY_CODE.get(code, TierFailed) if isinstance(code, str) else TierFailed
    found = kind(
        _text(error.get("message"), _MAX_MESSAGE_CHARS) or f"the server returned status {status}",
        field=_text(error.get("field"), _MAX_FIELD_CHARS),
        limit=_number(error.get("limit"), -_MAX_NUMBER),
        retry_after_s=_number(error.get("retry_after_s"), 0.0),
    )
    found.request_id = _text(error.get("request_id"), _MAX_ID_CHARS)
    return found


def _text(value: object, most: int) -> str | None:
    """Return at most ``most`` characters, without control characters and lone surrogates."""
    if not isinstance(value, str):
        return None
    return short_line(value, most)


def _number(value: object, least: float) -> float | None:
    """Return a finite number between ``least`` and `_MAX_NUMBER`; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if least <= value <= _MAX_NUMBER else None
