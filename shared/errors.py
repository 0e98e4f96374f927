"""Every error that dimee raises on purpose, and what each becomes over HTTP.

::

    DimeeError
    ├── InvalidInput            422  the caller's text or setting is wrong
    │   ├── TooLarge            413  more than a limit allows
    │   └── BundleMismatch      409  caller and tier run different models
    ├── NotFound                404  no such request in the ledger
    ├── Unauthorised            401  no token that is valid here and now
    ├── Forbidden               403  the token lacks the scope
    ├── BundleError             503  a bundle is missing, corrupt or cannot be used
    ├── MissingExtra            503  this device lacks an optional part of the installation
    ├── LedgerUnavailable       503  the ledger cannot be read
    └── TierError                    an attempt at a tier did not bring an answer
        ├── Overloaded          429  the tier's queue is full
        │   └── RateLimited     429  the caller asks more often than it may
        ├── NotAdmitted         503  the tier's door is closed to this caller: its token is wrong
        ├── NotReady            503  the tier has not loaded its bundle
        ├── TierUnreachable     503  no connection to the tier, or it broke
        ├── DeadlineExceeded    504  the time ran out
        └── TierFailed          500  the tier failed inside

The client raises the class that the server raised (`from_payload`). A message is one sentence that
says what is wrong and what to do; what is not in this table never leaves a process (`INTERNAL`).
"""

from __future__ import annotations

from typing import Any, ClassVar


class DimeeError(Exception):
    """The root; ``field`` names the wrong input and ``limit`` its bound, where there is one."""

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
        super().__init__(message)
        self.message = message
        self.field = field
        self.limit = limit
        self.retry_after_s = retry_after_s

    def payload(self) -> dict[str, Any]:
        """The public body: ``{"error": {code, message, field?, limit?, retry_after_s?}}``."""
        facts = {
            "code": self.code,
            "message": self.message,
            "field": self.field,
            "limit": self.limit,
            "retry_after_s": self.retry_after_s,
        }
        return {"error": {name: value for name, value in facts.items() if value is not None}}


class InvalidInput(DimeeError):
    """The caller's text or setting is wrong; the message names the field and the limit."""

    status = 422
    code = "invalid_input"


class TooLarge(InvalidInput):
    """More text, or more texts, than a limit allows."""

    status = 413
    code = "too_large"


class BundleMismatch(InvalidInput):
    """The caller and the tier run different bundles, so that their layers do not fit together."""

    status = 409
    code = "bundle_mismatch"


class NotFound(DimeeError):
    """No such thing in the ledger."""

    status = 404
    code = "not_found"


class Unauthorised(DimeeError):
    """The caller shows no token that is valid here and now."""

    status = 401
    code = "unauthorised"


class Forbidden(DimeeError):
    """The caller's token is valid, and lacks the scope; the message names it."""

    status = 403
    code = "forbidden"


class BundleError(DimeeError):
    """A bundle is missing, corrupt or does not fit the settings: refused at start."""

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


class TierError(DimeeError):
    """An attempt at a tier did not bring an answer."""

    code = "tier_failed"


class Overloaded(TierError):
    """The tier's queue is full; try again after ``retry_after_s``."""

    status = 429
    code = "overloaded"


class RateLimited(Overloaded):
    """The caller asks more often than it may; try again after ``retry_after_s``."""

    code = "rate_limited"


class NotAdmitted(TierError):
    """The tier's door is closed to this caller; who asks the caller has done nothing wrong."""

    status = 503
    code = "not_admitted"


class NotReady(TierError):
    """The tier has not loaded its bundle yet."""

    status = 503
    code = "not_ready"


class TierUnreachable(TierError):
    """No connection to the tier, or it broke before an answer."""

    status = 503
    code = "tier_unreachable"


class DeadlineExceeded(TierError):
    """The time for the answer ran out."""

    status = 504
    code = "deadline_exceeded"


class TierFailed(TierError):
    """The tier failed inside; details stay in its own log."""

    status = 500
    code = "tier_failed"


INTERNAL = {
    "error": {"code": "internal", "message": "something failed inside; see the server's log"}
}

_BY_CODE: dict[str, type[DimeeError]] = {
    kind.code: kind
    for kind in (
        InvalidInput,
        TooLarge,
        BundleMismatch,
        NotFound,
        Unauthorised,
        Forbidden,
        BundleError,
        MissingExtra,
        LedgerUnavailable,
        Overloaded,
        RateLimited,
        NotAdmitted,
        NotReady,
        TierUnreachable,
        DeadlineExceeded,
        TierFailed,
    )
}


def from_payload(body: object, status: int) -> DimeeError:
    """Rebuild the error that a server sent; anything unknown becomes `TierFailed`."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return TierFailed(f"the server answered with status {status} and no known error")
    kind = _BY_CODE.get(str(error.get("code")), TierFailed)
    return kind(
        str(error.get("message", f"status {status}")),
        field=error.get("field"),
        limit=error.get("limit"),
        retry_after_s=error.get("retry_after_s"),
    )
