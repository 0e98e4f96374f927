"""TierCaller the edge or the cloud over HTTP, and knowing afterwards what arrived."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

import httpx
from pydantic import ValidationError

from shared.credentials import Credentials
from shared.domain import Delivery, Tier
from shared.errors import (
    DeadlineExceeded,
    DimeeError,
    Forbidden,
    NotAdmitted,
    RateLimited,
    TierFailed,
    TierUnreachable,
    Unauthorised,
    from_payload,
)
from shared.inference.codec import MEDIA_TYPE
from shared.wire import InferRequest, InferResponse, ResumeRequest

_TLS = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not one that DIMEE_TLS_CA signed for it",
    "CERTIFICATE_REQUIRED": "it wants a certificate, see DIMEE_TLS_CLIENT_CERT",
    "UNKNOWN_CA": "it does not know who signed DIMEE_TLS_CLIENT_CERT",
    "WRONG_VERSION_NUMBER": "it speaks no TLS, its address begins with http:",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One HTTP exchange as the caller saw it. Bytes are those of head and body, without TCP/IP."""

    delivery: Delivery
    sent_bytes: int
    received_bytes: int
    round_trip_ms: float
    answer: InferResponse | None = None
    error: DimeeError | None = None


class TierClient:
    """Asks one tier. It never raises for what the tier or the network does: see `Exchange`."""

    def __init__(
        self,
        tier: Tier,
        url: str,
        transport: httpx.AsyncBaseTransport | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.tier = tier
        self.url = url.rstrip("/")
        self._urls = {path: httpx.URL(self.url + path) for path in ("/v1/infer", "/v1/resume")}
        self._credentials = credentials or Credentials()
        # without httpx's client around it: cookies, redirects and hooks that nobody uses here took
        # 0.12 ms of a request. The tiers are named in the settings; a proxy of the environment
        # would be one more hop
        self._transport = transport or httpx.AsyncHTTPTransport(
            trust_env=False,
            verify=self._credentials.verify,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=64),
        )

    async def infer(self, request: InferRequest, timeout_s: float) -> Exchange:
        """Send one attempt and wait at most ``timeout_s`` for all of its answer."""
        body = request.model_dump_json(exclude_none=True).encode()
        return await self._exchange(
            "/v1/infer", body, {"content-type": "application/json"}, timeout_s
        )

    async def resume(self, request: ResumeRequest, state: bytes, timeout_s: float) -> Exchange:
        """As `infer`, from the hidden ``state`` that `shared.inference.codec.encode` wrote."""
        headers = request.headers() | {"content-type": MEDIA_TYPE}
        return await self._exchange("/v1/resume", state, headers, timeout_s)

    async def _exchange(
        self, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> Exchange:
        headers = headers | self._credentials.headers()
        message = httpx.Request("POST", self._urls[path], content=body, headers=headers)
        sent = _size(message.headers, len(body))
        started = time.perf_counter()
        delivery = Delivery.UNKNOWN
        error: DimeeError
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(message)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as failure:
            delivery, sent = Delivery.NOT_SENT, 0
            error = TierUnreachable(
                f"the {self.tier} at {self.url} could not be reached ({_why(failure)})"
            )
        except TimeoutError:
            error = DeadlineExceeded(
                f"the {self.tier} at {self.url} did not answer within {timeout_s * 1e3:.0f} ms"
            )
        except httpx.HTTPError as failure:
            error = TierUnreachable(
                f"the connection to the {self.tier} at {self.url} broke ({_why(failure)})"
                + self._hint()
            )
        else:
            received = _size(response.headers, len(response.content))
            answer, problem = self._read(response)
            # a door books nothing, and the ledger expects no other side
            at_door = isinstance(problem, NotAdmitted | RateLimited)
            delivery = Delivery.UNKNOWN if at_door else Delivery.ARRIVED
            return Exchange(delivery, sent, received, _ms(started), answer, problem)
        return Exchange(delivery, sent, 0, _ms(started), None, error)

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
                    f"the {self.tier} at {self.url} does not admit this mobile ({error.code}); put "
                    "a token of it with the scope infer into DIMEE_TOKEN or DIMEE_TOKEN_FILE"
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
        """With TLS 1.3 a refused certificate is a connection that broke, often without a word."""
        if not self.url.startswith("https:"):
            return ""
        return "; if the tier takes certified callers only, see DIMEE_TLS_CLIENT_CERT"

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


def _size(headers: httpx.Headers, body_bytes: int) -> int:
    """Bytes of a message: header lines (with ': ' and line ends), start line, blank line, body."""
    lines = sum(len(name) + len(value) + 4 for name, value in headers.raw)
    return lines + len("POST /v1/infer HTTP/1.1\r\n") + 2 + body_bytes


def _ms(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


def _why(failure: Exception) -> str:
    words = str(failure) or type(failure).__name__
    return next((f"{reason}: {words}" for sign, reason in _TLS.items() if sign in words), words)
