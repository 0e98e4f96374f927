"""Client of the control endpoint of an emulated link's relay."""

from __future__ import annotations

from typing import Any

import httpx

from shared.bounded_transport import BoundedTransport
from shared.errors import TierUnreachable, from_payload
from shared.http_fetch import fetch, json_of
from shared.redaction import without_credentials

MAX_REPORT_BYTES = 1_000_000


class LinkControl:
    """Control of the relay of one hop; ``url`` is that of its control endpoint. Its methods block.

    A relay that gives no answer within ``timeout_s`` raises `TierUnreachable`.
    """

    def __init__(self, hop: str, url: str, timeout_s: float = 10.0) -> None:
        self.hop = hop
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s

    def report(self) -> dict[str, Any]:
        """Return the state of the link and what has passed it, as `dimee link show` lists it."""
        return self._request("GET", "/link")

    def change(self, spec: str) -> dict[str, Any]:
        """Change the link to ``4g``, ``4g,loss=0.01``, ``stall`` or another outage.

        Returns the new report; raises `InvalidInput`.
        """
        return self._request("PUT", "/link", {"spec": spec})

    def set_overhead(self, overhead_ms: float) -> None:
        """Set the time that the relay itself adds to one direction, in ms."""
        self._request("PUT", "/overhead", {"overhead_ms": overhead_ms})

    def run_schedule(self, text: str | None = None) -> dict[str, Any]:
        """Start the schedule that the relay was started with, or the one in ``text``."""
        return self._request("PUT", "/schedule", {} if text is None else {"text": text})

    def open_probe(self, target: str) -> int:
        """Open a port that leads over the same link without loss to ``host:port``; return it."""
        return int(self._request("PUT", "/probe", {"target": target})["port"])

    def close_probe(self) -> None:
        """Close the port of `open_probe`."""
        self._request("PUT", "/probe", {})

    def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            with httpx.Client(transport=BoundedTransport(), timeout=self._timeout_s) as http:
                response = fetch(
                    http, method, f"{self.url}{path}", json=body, max_bytes=MAX_REPORT_BYTES
                )
        except httpx.HTTPError as error:
            raise TierUnreachable(
                f"the link {self.hop} at {without_credentials(self.url)} cannot be reached "
                f"({error or type(error).__name__}); is its testbed running?"
            ) from None
        answer = json_of(response)
        if response.status_code != httpx.codes.OK:
            raise from_payload(answer, response.status_code)
        if not isinstance(answer, dict):
            raise TierUnreachable(
                f"the server at {without_credentials(self.url)} is no link {self.hop}; "
                "correct its address"
            )
        return answer
