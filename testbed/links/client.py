"""Speaking to a relay's control endpoint."""

from __future__ import annotations

from typing import Any

import httpx

from shared.errors import DimeeError, from_payload


class LinkControl:
    """One hop's relay, by the address of its control endpoint."""

    def __init__(self, hop: str, url: str) -> None:
        self.hop = hop
        self.url = url.rstrip("/")

    def show(self) -> dict[str, Any]:
        """What the link is, and what has passed it."""
        return self._ask("GET", "/link")

    def change(self, words: str) -> dict[str, Any]:
        """``4g``, ``4g,loss=0.01``, ``cut`` or ``refuse``; raises `InvalidInput`."""
        return self._ask("PUT", "/link", {"words": words})

    def trim(self, trim_ms: float) -> None:
        """Say what the relay itself adds to one way, in ms."""
        self._ask("PUT", "/trim", {"trim_ms": trim_ms})

    def run_schedule(self, text: str | None = None) -> dict[str, Any]:
        """Begin the schedule that the relay was started with, or this one."""
        return self._ask("PUT", "/schedule", {} if text is None else {"text": text})

    def open_probe(self, target: str) -> int:
        """The port of a second way in, over the same link without loss, to ``host:port``."""
        return int(self._ask("PUT", "/probe", {"target": target})["port"])

    def close_probe(self) -> None:
        """Close the second way in."""
        self._ask("PUT", "/probe", {})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = httpx.request(
                method, f"{self.url}{path}", json=body, trust_env=False, timeout=10.0
            )
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise DimeeError(
                f"the link {self.hop} at {self.url} cannot be reached "
                f"({error or type(error).__name__}); is its testbed up?"
            ) from None
        if not response.is_success:
            raise from_payload(answer, response.status_code)
        return dict(answer)
