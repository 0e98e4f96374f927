"""HTTP client that reads the ledger."""

from __future__ import annotations

from datetime import date
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from shared.addresses import check_address
from shared.bounded_transport import BoundedTransport
from shared.credentials import Credentials
from shared.domain import Reason, State, Tier
from shared.errors import InvalidInput, LedgerUnavailable, from_payload
from shared.http_fetch import fetch, json_of
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import Summary, Verification
from shared.ledger.request_list import RequestList, RequestRecord
from shared.redaction import without_credentials
from shared.settings import NO_LEDGER

CONNECT_S = 10.0
"""Time after which a ledger that does not accept the connection counts as unreachable."""
T = TypeVar("T")
_SUMMARY = TypeAdapter(Summary)
_VERIFICATION = TypeAdapter(Verification)
_ENTRIES = TypeAdapter(list[LedgerEntry])
_REQUEST_LIST = TypeAdapter(RequestList)
_REQUESTS = TypeAdapter(list[dict[str, list[LedgerEntry]]])


class LedgerClient:
    """Client of the ledger service at ``url``; ``timeout_s`` is the longest silence of it.

    Every method raises `LedgerUnavailable` if the ledger cannot be reached, and otherwise the error
    that the ledger answered with.
    """

    def __init__(
        self,
        url: str,
        transport: httpx.BaseTransport | None = None,
        credentials: Credentials | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        if url == NO_LEDGER:
            raise InvalidInput(
                "ledger-url: DIMEE_LEDGER_URL is off, so nothing is recorded; give the address of "
                "a ledger",
                field="ledger-url",
            )
        self.url = check_address(url, "ledger-url").rstrip("/")
        credentials = credentials or Credentials()
        self._http = httpx.Client(
            base_url=self.url,
            transport=transport or BoundedTransport(credentials.verify),
            trust_env=False,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
            auth=credentials.auth,
        )

    def summary(self) -> Summary:
        """Return shares, percentiles, bytes and costs of the whole ledger."""
        return self._read(_SUMMARY, self._get("/v1/summary"))

    def verify(self, day: date | None = None) -> Verification:
        """Match the two sides of every attempt, or of those of requests that began on a day."""
        params = None if day is None else {"day": day.isoformat()}
        return self._read(_VERIFICATION, self._get("/v1/verify", params))

    def request_entries(self, request_id: str) -> list[LedgerEntry]:
        """Return both sides of a request's attempts, in order; raises `NotFound`."""
        quoted = quote(request_id, safe="", errors="replace")
        return self._read(_ENTRIES, self._get(f"/v1/requests/{quoted}").get("entries"))

    def last_requests(self, count: int, policy: str | None = None) -> list[list[LedgerEntry]]:
        """Return the last ``count`` (at most 1,000) answered requests, newest first.

        Each is the list of the caller's entries. With ``policy``, only requests that this policy
        decided are returned.
        """
        params = {"last": str(count)} | ({} if policy is None else {"policy": policy})
        requests = self._read(_REQUESTS, self._get("/v1/last-requests", params).get("requests"))
        return [request["entries"] for request in requests]

    def list_requests(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        policy: str | None = None,
        tier: Tier | str | None = None,
        reason: Reason | str | None = None,
        state: State | str | None = None,
        limit: int = 100,
    ) -> list[RequestRecord]:
        """Return ended requests in short, newest first; raises `InvalidInput` for a wrong argument.

        The arguments are those of `RequestFilter`. Example, the last ten minutes at the edge:
        ``client.list_requests(since=time.time() - 600, tier="edge")``.
        """
        given = {
            "since": since, "until": until, "policy": policy, "tier": tier, "reason": reason,
            "state": state, "limit": limit,
        }  # fmt: skip
        params = {name: str(value) for name, value in given.items() if value is not None}
        return self._read(_REQUEST_LIST, self._get("/v1/requests", params)).requests

    def _get(self, path: str, params: dict[str, str] | None = None) -> dict[str, object]:
        try:
            response = fetch(self._http, "GET", path, params=params)
        except httpx.HTTPError as error:
            raise LedgerUnavailable(
                f"the ledger at {without_credentials(self.url)} cannot be reached "
                f"({error or type(error).__name__}); "
                "start it with: dimee up, or give its address with --ledger-url"
            ) from None
        body = json_of(response)
        if response.status_code != httpx.codes.OK:
            raise from_payload(body, response.status_code)
        if not isinstance(body, dict):
            raise self._unknown_format()
        return body

    def _read(self, adapter: TypeAdapter[T], value: object) -> T:
        try:
            return adapter.validate_python(value)
        except ValidationError:
            raise self._unknown_format() from None

    def _unknown_format(self) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"the server at {without_credentials(self.url)} answers in an unknown format; give "
            "the ledger's address with --ledger-url, and run the same version of dimee everywhere"
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
