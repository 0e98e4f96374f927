"""HTTP client for the edge and the cloud that reports delivery, bytes and round-trip time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from shared.answer_rules import MAX_ANSWER_BYTES, AnswerRules
from shared.credentials import Credentials
from shared.domain import Delivery, Tier
from shared.errors import DeadlineExceeded, DimeeError, NotReady, TierError, TierUnreachable
from shared.http_fetch import parse_json
from shared.inference.codec import MEDIA_TYPE
from shared.redaction import redacted, without_credentials
from shared.replica import HEADER, replica_of
from shared.rounding import shown_ms
from shared.short_line import short_line
from shared.telemetry.trace_context import TraceContext
from shared.tier_response import ResponseReader
from shared.tier_transport import (
    FRESH_CONNECTION,
    MAX_CONNECTIONS,
    ReusedConnectionBroke,
    TierTransport,
)
from shared.wire import InferRequest, InferResponse, ResumeRequest

log = logging.getLogger(__name__)
INFER, RESUME = "/v1/infer", "/v1/resume"

_TLS_HINTS = {
    "CERTIFICATE_VERIFY_FAILED": "DIMEE_TLS_CA has not signed its certificate for this address",
    "CERTIFICATE_REQUIRED": "it requires a client certificate, see DIMEE_TLS_CLIENT_CERT",
    "UNKNOWN_CA": "it does not trust the signer of DIMEE_TLS_CLIENT_CERT",
    "WRONG_VERSION_NUMBER": "it does not use TLS, its address begins with http:",
}
_MAX_CHUNKS = 10_000
"""Largest number of pieces of a body: a million chunks of one byte take seconds to read."""
_MAX_REASON_CHARS = 200
MAX_FORMER = 100
"""Names of replicas after each other at an address that are told from a load balancer's."""


class _InvalidAnswer(Exception):
    """The answer's body was not read to its end, but ``received_bytes`` of it."""

    def __init__(self, problem: str, received_bytes: int = 0) -> None:
        super().__init__(problem)
        self.received_bytes = received_bytes


@dataclass(frozen=True, slots=True)
class _Call:
    """One attempt to send; ``after`` is the layer of a hidden state, or None for a text."""

    path: str
    body: bytes
    headers: dict[str, str]
    attempt_id: str
    timeout_s: float
    fresh_connection: bool
    after: int | None = None
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One HTTP exchange from the caller's side; bytes count head and body, without TCP/IP.

    ``reused_connection_broke`` is True if an idle connection that was used again broke before it
    carried a byte of the answer. That says nothing about the tier: the attempt should be made again
    on a fresh connection. ``waited_ms`` is the time before the round trip, in which other exchanges
    of this client had all of its connections. ``status`` is that of the response. ``replica`` is
    the replica that gave it, or, without a response, the one that is known to be at this address.
    """

    delivery: Delivery
    sent_bytes: int
    received_bytes: int
    round_trip_ms: float
    answer: InferResponse | None = None
    error: DimeeError | None = None
    reused_connection_broke: bool = False
    waited_ms: float = 0.0
    status: int | None = None
    replica: str | None = None


class TierClient:
    """Sends attempts to one tier.

    It does not raise failures of the tier or the network; they are the ``error`` of an `Exchange`.
    An answer that is not a valid answer to the attempt by ``rules`` is a failure of the tier.
    ``clock`` returns seconds and measures the round trips. ``address`` is the IP address to which
    the connections go, if the URL's name has several.
    """

    def __init__(
        self,
        tier: Tier,
        url: str,
        rules: AnswerRules,
        transport: httpx.AsyncBaseTransport | None = None,
        credentials: Credentials | None = None,
        clock: Callable[[], float] = time.perf_counter,
        address: str | None = None,
    ) -> None:
        self.tier = tier
        self.address = address
        self._rules = rules
        self.url = url.rstrip("/")
        self.shown_url = without_credentials(url) + (f" ({address})" if address else "")
        self._urls = {path: httpx.URL(self.url + path) for path in (INFER, RESUME)}
        self._credentials = credentials or Credentials()
        self._clock = clock
        self._reader = ResponseReader(tier, self.shown_url, rules)
        self.replica: str | None = None
        """Name of the replica at this address, by the last response; None before the first one.

        None also behind a load balancer: if a name returns after another one.
        """
        self._former: set[str] = set()
        self._balanced = False
        # httpx's client, with its cookies, redirects and hooks, took 0.12 ms of a request
        self._transport = transport or TierTransport(self._credentials.verify, address)
        self._free_connections = asyncio.Semaphore(MAX_CONNECTIONS)

    async def infer(
        self,
        request: InferRequest,
        timeout_s: float,
        *,
        fresh_connection: bool = False,
        trace: TraceContext | None = None,
    ) -> Exchange:
        """Send one attempt and wait at most ``timeout_s`` for the complete answer.

        ``fresh_connection`` opens a connection instead of using one that is already open. The tier
        continues ``trace``.
        """
        call = _Call(
            INFER,
            request.model_dump_json(exclude_none=True).encode(),
            {"content-type": "application/json"},
            request.attempt_id,
            timeout_s,
            fresh_connection,
            trace=trace,
        )
        return await self._exchange(call)

    async def resume(
        self,
        request: ResumeRequest,
        state: bytes,
        after: int,
        timeout_s: float,
        *,
        fresh_connection: bool = False,
        trace: TraceContext | None = None,
    ) -> Exchange:
        """Send one attempt with a hidden ``state``: the output of the layer ``after``, encoded by
        `shared.inference.codec`."""
        headers = request.headers() | {"content-type": MEDIA_TYPE}
        call = _Call(
            RESUME,
            state,
            headers,
            request.attempt_id,
            timeout_s,
            fresh_connection,
            after,
            trace,
        )
        return await self._exchange(call)

    async def probe(self, timeout_s: float) -> TierError | None:
        """Ask ``/readyz``; return None if the tier is ready, else the error.

        Only this tier's own answer, with the same bundle, says that it is ready: another server at
        the address may answer 200 to any request.
        The error is `NotReady`, `TierUnreachable`, or `DeadlineExceeded` without an answer in
        ``timeout_s``.
        """
        try:
            status, body = await self._get("/readyz", timeout_s)
        except TimeoutError:
            return DeadlineExceeded(
                f"the {self.tier} at {self.shown_url} does not say whether it is ready"
            )
        except Exception as failure:  # a transport may raise anything
            reason = _reason(failure)
            return TierUnreachable(f"the {self.tier} at {self.shown_url} is not reached ({reason})")
        if status != httpx.codes.OK or not self._rules.says_ready(parse_json(body)):
            return NotReady(f"the {self.tier} at {self.shown_url} is not ready")
        return None

    async def is_alive(self, timeout_s: float) -> bool:
        """Ask ``/healthz``; return True if the tier answers within ``timeout_s``."""
        try:
            status, _ = await self._get("/healthz", timeout_s)
        except Exception:  # a transport may raise anything
            return False
        return status == httpx.codes.OK

    async def _get(self, path: str, timeout_s: float) -> tuple[int, bytes]:
        """Return the status and the body of the answer to a GET of ``path``."""
        message = httpx.Request(
            "GET",
            self.url + path,
            headers=self._credentials.headers(),
            # an idle connection that broke says nothing about the tier
            extensions={FRESH_CONNECTION: True},
        )
        async with asyncio.timeout(timeout_s):
            response, body = await self._send(message)
        return response.status_code, body

    async def _exchange(self, call: _Call) -> Exchange:
        headers = call.headers | self._credentials.headers()
        if call.trace is not None:
            headers |= call.trace.headers
        message = httpx.Request(
            "POST",
            self._urls[call.path],
            content=call.body,
            headers=headers,
            extensions={FRESH_CONNECTION: call.fresh_connection},
        )
        sent = _size(message.headers, len(call.body))
        asked = self._clock()
        started: float | None = None
        delivery, received = Delivery.UNKNOWN, 0
        broke = False
        error: DimeeError
        try:
            async with asyncio.timeout(call.timeout_s), self._free_connections:
                started = self._clock()
                response, body = await self._send(message)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as failure:
            delivery, sent = Delivery.NOT_SENT, 0
            error = TierUnreachable(
                f"the {self.tier} at {self.shown_url} could not be reached ({_reason(failure)})"
            )
        except TimeoutError:
            problem = "did not answer"
            if started is None:
                delivery, sent = Delivery.NOT_SENT, 0
                problem = f"was not asked, because {MAX_CONNECTIONS} other requests were under way,"
            error = DeadlineExceeded(
                f"the {self.tier} at {self.shown_url} {problem} within "
                f"{shown_ms(call.timeout_s * 1e3)}"
            )
        except _InvalidAnswer as failure:
            error, received = self._reader.invalid(str(failure)), failure.received_bytes
        except Exception as failure:
            # whatever a transport raises, the attempt has failed and its entry needs an end
            if not isinstance(failure, httpx.HTTPError):
                log.warning("the transport raised %s", redacted(failure))
            broke = isinstance(failure, ReusedConnectionBroke)
            error = TierUnreachable(
                f"the connection to the {self.tier} at {self.shown_url} broke ({_reason(failure)})"
                + self._hint()
            )
        else:
            round_trip_ms = self._elapsed_ms(started)
            received = _size(response.headers, len(body))
            status = response.status_code
            content = self._reader.read(status, body, call.attempt_id, call.after, round_trip_ms)
            return Exchange(
                content.delivery,
                sent,
                received,
                round_trip_ms,
                content.answer,
                content.error,
                waited_ms=(started - asked) * 1e3,
                status=status,
                replica=self._named(response.headers.get(HEADER)),
            )
        round_trip_ms = 0.0 if started is None else self._elapsed_ms(started)
        waited_ms = self._elapsed_ms(asked) - round_trip_ms
        return Exchange(
            delivery,
            sent,
            received,
            round_trip_ms,
            None,
            error,
            broke,
            waited_ms,
            replica=self.replica,
        )

    async def _send(self, message: httpx.Request) -> tuple[httpx.Response, bytes]:
        """Return the response and its body, as sent; raise `_InvalidAnswer` for a wrong body."""
        response = await self._transport.handle_async_request(message)
        try:
            # a few kilobytes of a compressed body may expand to gigabytes
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _InvalidAnswer("in a compressed form, which was not asked for")
            assert isinstance(response.stream, httpx.AsyncByteStream)
            body, chunks = bytearray(), 0
            async for chunk in response.stream:
                body += chunk
                chunks += 1
                if len(body) > MAX_ANSWER_BYTES or chunks > _MAX_CHUNKS:
                    raise _InvalidAnswer(f"with more than {MAX_ANSWER_BYTES:,} bytes", len(body))
        finally:
            await response.aclose()
        return response, bytes(body)

    def _named(self, header: str | None) -> str | None:
        """Return the replica that gave a response, and remember it."""
        replica = replica_of(header)
        if replica is not None and not self._balanced and replica != self.replica:
            self._balanced = replica in self._former or len(self._former) >= MAX_FORMER
            if self.replica is not None:
                self._former.add(self.replica)
            self.replica = None if self._balanced else replica
        return replica

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
    """Return the failure's message, or its class: printable, and of a limited length."""
    message = str(failure) or type(failure).__name__
    hints = (hint for sign, hint in _TLS_HINTS.items() if sign in message)
    hint = next(hints, None)
    # the peer may have sent parts of it
    shown = short_line(message, _MAX_REASON_CHARS)
    return shown if hint is None else f"{hint}: {shown}"
