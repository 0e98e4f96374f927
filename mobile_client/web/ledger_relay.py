"""Relay of the app's ledger entries, which accepts only those that a browser's mobile writes."""

from __future__ import annotations

import asyncio
from typing import Annotated

import httpx
from fastapi import Request
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from starlette.responses import Response

from mobile_client.settings import MobileSettings
from mobile_client.web.app_config import LEDGER_BATCH
from mobile_client.web.relay import check_content_type
from shared.credentials import Credentials
from shared.domain import Reason, Side, Tier
from shared.errors import (
    DimeeError,
    InvalidInput,
    LedgerUnavailable,
    Overloaded,
    from_payload,
    is_error_document,
)
from shared.http_fetch import parse_json
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import StoreResult
from shared.serving.disconnect import cancel_on_disconnect
from shared.serving.responses import error_response
from shared.settings import NO_LEDGER
from shared.tier_transport import TierTransport
from shared.validation import request_error

WRITER = "web"
"""``writer`` of every entry that a browser writes; the gateway's own have another."""
REASONS = frozenset({Reason.ROUTE, Reason.ESCALATE, Reason.FAIL_OVER, Reason.RETRY})
"""Reasons of a browser's attempts, which makes neither hedges nor audits."""
ENTRIES = "/v1/entries"
TIMEOUT_S = 10.0
MAX_CALLS = 16
"""Most deliveries of browsers that are in flight."""
MAX_ANSWER_BYTES = 64 * 1024


class _Batch(BaseModel):
    """Body of a delivery."""

    model_config = ConfigDict(extra="forbid")

    entries: Annotated[list[LedgerEntry], FailFast(), Field(max_length=LEDGER_BATCH)]


class LedgerRelay:
    """Delivers entries to the settings' ledger with the gateway's credentials."""

    def __init__(self, settings: MobileSettings) -> None:
        self._url = settings.ledger_url.rstrip("/")
        self._credentials = Credentials.of(settings)
        self._transport: TierTransport | None = None
        self._calls = 0

    async def store(self, message: Request) -> Response:
        """Answer ``POST v1/entries`` as the ledger does."""
        try:
            body = _checked(await message.body(), message.headers.get("content-type", ""))
            if self._calls >= MAX_CALLS:
                raise Overloaded(
                    f"{MAX_CALLS} deliveries of browsers are in flight; try again in 1 s",
                    limit=MAX_CALLS,
                    retry_after_s=1.0,
                )
            self._calls += 1
            try:
                result = await cancel_on_disconnect(message.receive, self._deliver(body))
            finally:
                self._calls -= 1
        except DimeeError as error:
            return error_response(error)
        return Response(result.model_dump_json(), media_type="application/json")

    async def close(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _deliver(self, body: bytes) -> StoreResult:
        """Send a batch; raise `LedgerUnavailable`, or the error of a ledger that refuses it."""
        if self._url == NO_LEDGER:
            raise LedgerUnavailable(
                "the gateway's DIMEE_LEDGER_URL is off, so nothing is recorded; give it a ledger"
            )
        if self._transport is None:
            self._transport = TierTransport(self._credentials.verify)
        message = httpx.Request(
            "POST",
            self._url + ENTRIES,
            content=body,
            headers={"content-type": "application/json"} | self._credentials.headers(),
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, answer = await self._send(self._transport, message)
        except (httpx.HTTPError, TimeoutError):
            raise LedgerUnavailable(
                "the gateway cannot reach its ledger; the entries must be sent again later"
            ) from None
        return _result(status, parse_json(answer))

    async def _send(self, transport: TierTransport, message: httpx.Request) -> tuple[int, bytes]:
        response = await transport.handle_async_request(message)
        try:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            body = bytearray()
            async for chunk in response.stream:
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise httpx.ReadError("the answer is too large")
        finally:
            await response.aclose()
        return response.status_code, bytes(body)


def _result(status: int, answer: object) -> StoreResult:
    if status == httpx.codes.OK:
        try:
            return StoreResult.model_validate(answer)
        except ValidationError:
            raise LedgerUnavailable(
                "the server at the gateway's DIMEE_LEDGER_URL does not answer as a ledger"
            ) from None
    error = from_payload(answer, status)
    # a refusal of the entries or a request to wait; whether the gateway's own token is valid is not
    # the browser's concern, and it would ask for another one
    if is_error_document(answer, status) and isinstance(error, InvalidInput | Overloaded):
        raise error
    raise LedgerUnavailable(
        f"the gateway's ledger does not store entries now (status {status}); see the gateway's log "
        "and dimee status"
    )


def _checked(body: bytes, content_type: str) -> bytes:
    """Return the batch as it is sent on; raise `InvalidInput` for what a browser may not write."""
    check_content_type(content_type)
    try:
        entries = _Batch.model_validate_json(body).entries
    except ValidationError as error:
        raise request_error(error.errors(include_url=False, include_input=False)[0]) from None
    for number, entry in enumerate(entries):
        if (wrong := _not_a_browsers(entry)) is not None:
            field, problem = wrong
            raise InvalidInput(
                f"entries.{number}.{field}: {problem}", field=f"entries.{number}.{field}"
            )
    # written again, so that the ledger reads exactly what was checked
    documents = (entry.model_dump_json(exclude_none=True) for entry in entries)
    return f'{{"entries":[{",".join(documents)}]}}'.encode()


def _not_a_browsers(entry: LedgerEntry) -> tuple[str, str] | None:
    """Return the field that shows that no browser has written the entry, and why; None if none."""
    if entry.writer != WRITER:
        return "writer", f"must be {WRITER!r}: a browser delivers its own entries only"
    if entry.certificate_id is not None or entry.degraded is not None:
        return "certificate_id", "must be left out: no certificate covers a browser's answers"
    if entry.side is Side.TIER:
        if entry.tier is not Tier.MOBILE:
            return "side", f"must be caller: the {entry.tier} writes its side of an attempt itself"
        return None if entry.replica is None else ("replica", "must be left out on the mobile")
    if entry.reason not in REASONS:
        return "reason", f"must be one of {', '.join(sorted(REASONS))}"
    return None
