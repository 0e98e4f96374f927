"""HTTP client for the edge and the cloud that reports delivery, bytes and round-trip time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from pydantic import ValidationError

from shared.connections import connection_limits
from shared.credentials import Credentials
from shared.domain import Delivery, Tier
from shared.errors import (
    DeadlineExceeded,
    DimeeError,
    Forbidden,
    NotAdmitted,
    NotReady,
    RateLimited,
    TierError,
    TierFailed,
    TierUnreachable,
    Unauthorised,
    from_payload,
)
from shared.inference.codec import MEDIA_TYPE
from shared.wire import InferRequest, InferResponse, ResumeRequest

_TLS_HINTS = {
    "CERTIFICATE_VERIFY_FAILED": "DIMEE_TLS_CA has not signed its certificate for this address",
    "CERTIFICATE_REQUIRED": "it requires a client certificate, see DIMEE_TLS_CLIENT_CERT",
    "UNKNOWN_CA": "it does not trust the signer of DIMEE_TLS_CLIENT_CERT",
    "WRONG_VERSION_NUMBER": "it does not use TLS, its address begins with http:",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One HTTP exchange from the caller's side; bytes count head and body, without TCP/IP."""

    delivery: Delivery
    sent_bytes: int
    received_bytes: int
    round_trip_ms: float
    answer: InferResponse | None = None
    error: DimeeError | None = None


class TierClient:
    """Sends attempts to one tier.

    It does not raise failures of the tier or the network; they are the ``error`` of an `Exchange`.
    ``clock`` returns seconds and measures the round trips.
    """

    def __init__(
        self,
        tier: Tier,
        url: str,
        transport: httpx.AsyncBaseTransport | None = None,
        credentials: Credentials | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.tier = tier
        self.url = url.rstrip("/")
        self._urls = {path: httpx.URL(self.url + path) for path in ("/v1/infer", "/v1/resume")}
        self._credentials = credentials or Credentials()
        self._clock = clock
        # httpx's transport without its client, whose cookies, redirects and hooks took 0.12 ms of a
        # request; trust_env=False, so that a proxy in the environment adds no hop
        self._transport = transport or httpx.AsyncHTTPTransport(
            trust_env=False,
            verify=self._credentials.verify,
            limits=connection_limits(64),
        )

    async def infer(self, request: InferRequest, timeout_s: float) -> Exchange:
        """Send one attempt and wait at most ``timeout_s`` for the complete answer."""
        body = request.model_dump_json(exclude_none=True).encode()
        return await self._exchange(
            "/v1/infer", body, {"content-type": "application/json"}, timeout_s
        )

    async def resume(self, request: ResumeRequest, state: bytes, timeout_s: float) -> Exchange:
        """Send one attempt with a hidden ``state``, encoded by `shared.inference.codec`."""
        headers = request.headers() | {"content-type": MEDIA_TYPE}
        return await self._exchange("/v1/resume", state, headers, timeout_s)

    async def probe(self, timeout_s: float) -> TierError | None:
        """Ask ``/readyz``; return None if the tier is ready, else `NotReady` or `TierUnreachable`.

        Any answer except a server error shows that the tier can be reached.
        """
        message = httpx.Request("GET", self.url + "/readyz", headers=self._credentials.headers())
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(message)
        except Exception as failure:  # a transport may raise anything
            reason = _reason(failure)
            return TierUnreachable(f"the {self.tier} at {self.url} is not reached ({reason})")
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            return NotReady(f"the {self.tier} at {self.url} is not ready")
        return None

    async def _exchange(
        self, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> Exchange:
        headers = headers | self._credentials.headers()
        message = httpx.Request("POST", self._urls[path], content=body, headers=headers)
        sent = _size(message.headers, len(body))
        started = self._clock()
        delivery = Delivery.UNKNOWN
        error: DimeeError
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(message)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as failure:
            delivery, sent = Delivery.NOT_SENT, 0
            error = TierUnreachable(
                f"the {self.tier} at {self.url} could not be reached ({_reason(failure)})"
            )
        except TimeoutError:
            error = DeadlineExceeded(
                f"the {self.tier} at {self.url} did not answer within {timeout_s * 1e3:.0f} ms"
            )
        except httpx.HTTPError as failure:
            error = TierUnreachable(
                f"the connection to the {self.tier} at {self.url} broke ({_reason(failure)})"
                + self._hint()
            )
        else:
            received = _size(response.headers, len(response.content))
            answer, problem = self._read(response)
            # auth and rate limits refuse before the tier records the attempt: no row to match
            unrecorded = isinstance(problem, NotAdmitted | RateLimited)
            delivery = Delivery.UNKNOWN if unrecorded else Delivery.ARRIVED
            return Exchange(delivery, sent, received, self._elapsed_ms(started), answer, problem)
        return Exchange(delivery, sent, 0, self._elapsed_ms(started), None, error)

    async def _send(self, message: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(message)
        try:
            await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response

    def _read(self, response: httpx.Response) -> tuple[InferResponse | None, DimeeError | None]:
        if response.status_code != httpx.codes.OK:
            try:
                body = response.json()
            except (json.JSONDecodeError, UnicodeDecodeError):
                body = None
            error = from_payload(body, response.status_code)
            if isinstance(error, Unauthorised | Forbidden):
                error = NotAdmitted(
                    f"the {self.tier} at {self.url} does not admit this mobile ({error.code}); set "
                    "DIMEE_TOKEN or DIMEE_TOKEN_FILE to a token of that tier with the scope infer"
                )
            return None, error
        try:
            return InferResponse.model_validate_json(response.content), None
        except ValidationError:
            return None, TierFailed(
                f"the {self.tier} at {self.url} answered in an unknown format; "
                "run the same version of dimee everywhere"
            )

    def _hint(self) -> str:
        """Return advice for TLS 1.3, where a refused certificate is just a broken connection."""
        if not self.url.startswith("https:"):
            return ""
        return "; if the tier requires client certificates, see DIMEE_TLS_CLIENT_CERT"

    def _elapsed_ms(self, started: float) -> float:
        return (self._clock() - started) * 1e3

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


def _size(headers: httpx.Headers, body_bytes: int) -> int:
    """Return the bytes of a message: start line, headers with separators, blank line and body."""
    lines = sum(len(name) + len(value) + 4 for name, value in headers.raw)
    return lines + len("POST /v1/infer HTTP/1.1\r\n") + 2 + body_bytes


def _reason(failure: Exception) -> str:
    message = str(failure) or type(failure).__name__
    hints = (hint for sign, hint in _TLS_HINTS.items() if sign in message)
    hint = next(hints, None)
    return message if hint is None else f"{hint}: {message}"
