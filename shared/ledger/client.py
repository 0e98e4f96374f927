"""HTTP client that reads the ledger."""

from __future__ import annotations

from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from shared.addresses import address_of_option
from shared.connections import connection_limits
from shared.credentials import Credentials
from shared.errors import InvalidInput, LedgerUnavailable, from_payload
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import Summary, Verification
from shared.redaction import without_credentials
from shared.settings import NO_LEDGER

_ENTRIES = TypeAdapter(list[LedgerEntry])
_REQUESTS = TypeAdapter(list[dict[str, list[LedgerEntry]]])


class LedgerClient:
    """Client of the ledger service at ``url``.

    Every method raises `LedgerUnavailable` if the ledger cannot be reached, and otherwise the error
    that the ledger answered with.
    """

    def __init__(
        self,
        url: str,
        transport: httpx.BaseTransport | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        if url == NO_LEDGER:
            raise InvalidInput(
                "ledger-url: DIMEE_LEDGER_URL is off, so nothing is recorded; give the address of "
                "a ledger",
                field="ledger-url",
            )
        self.url = address_of_option("ledger-url", url).rstrip("/")
        credentials = credentials or Credentials()
        self._http = httpx.Client(
            base_url=self.url,
            transport=transport,
            trust_env=False,
            timeout=60.0,
            auth=credentials.auth,
            verify=credentials.verify,
            limits=connection_limits(),
        )

    def summary(self) -> Summary:
        """Return shares, percentiles, bytes and costs of the whole ledger."""
        return Summary.model_validate(self._get("/v1/summary"))

    def verify(self) -> Verification:
        """Match the two sides of every attempt."""
        return Verification.model_validate(self._get("/v1/verify"))

    def request_entries(self, request_id: str) -> list[LedgerEntry]:
        """Return both sides of a request's attempts, in order; raises `NotFound`."""
        quoted = quote(request_id, safe="", errors="replace")
        return _ENTRIES.validate_python(self._get(f"/v1/requests/{quoted}")["entries"])

    def last_requests(self, count: int, policy: str | None = None) -> list[list[LedgerEntry]]:
        """Return the last ``count`` (at most 1,000) answered requests, newest first.

        Each is the list of the caller's entries. With ``policy``, only requests that this policy
        decided are returned.
        """
        params = {"last": str(count)} | ({} if policy is None else {"policy": policy})
        requests = _REQUESTS.validate_python(self._get("/v1/requests", params)["requests"])
        return [request["entries"] for request in requests]

    def _get(self, path: str, params: dict[str, str] | None = None) -> dict[str, object]:
        try:
            response = self._http.get(path, params=params)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LedgerUnavailable(
                f"the ledger at {without_credentials(self.url)} cannot be reached ({error or type(error).__name__}); "
                "start it with: dimee up, or give its address with --ledger-url"
            ) from None
        try:
            body = response.json()
        except ValueError:
            body = None
        if not response.is_success or not isinstance(body, dict):
            raise from_payload(body, response.status_code)
        return body

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
