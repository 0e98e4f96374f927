"""Reading the ledger over HTTP."""

from __future__ import annotations

from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from shared.credentials import Credentials
from shared.errors import LedgerUnavailable, from_payload
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import Summary, Verification

_ENTRIES = TypeAdapter(list[LedgerEntry])
_STORIES = TypeAdapter(list[dict[str, list[LedgerEntry]]])


class LedgerClient:
    """Raises `LedgerUnavailable` where the ledger cannot be read, `NotFound` where it says so."""

    def __init__(
        self,
        url: str,
        transport: httpx.BaseTransport | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        shown = credentials or Credentials()
        self._http = httpx.Client(
            base_url=self.url,
            transport=transport,
            trust_env=False,
            timeout=60.0,
            auth=shown.auth,
            verify=shown.verify,
        )

    def summary(self) -> Summary:
        """Shares, percentiles, bytes and costs."""
        return Summary.model_validate(self._get("/v1/summary"))

    def verify(self) -> Verification:
        """Match both sides of every attempt."""
        return Verification.model_validate(self._get("/v1/verify"))

    def request(self, request_id: str) -> list[LedgerEntry]:
        """Both sides of a request's attempts, in their order."""
        quoted = quote(request_id, safe="", errors="replace")
        story = self._get(f"/v1/requests/{quoted}")
        return _ENTRIES.validate_python(story["entries"])

    def last(self, count: int, policy: str | None = None) -> list[list[LedgerEntry]]:
        """The last ``count`` answered requests (at most 1,000), newest first, the callers' side."""
        wanted = {"last": str(count)} | ({} if policy is None else {"policy": policy})
        stories = _STORIES.validate_python(self._get("/v1/requests", wanted)["requests"])
        return [story["entries"] for story in stories]

    def _get(self, path: str, params: dict[str, str] | None = None) -> dict[str, object]:
        try:
            response = self._http.get(path, params=params)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LedgerUnavailable(
                f"the ledger at {self.url} cannot be reached ({error or type(error).__name__}); "
                "start it with: dimee up, or say where it is with --ledger-url"
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
