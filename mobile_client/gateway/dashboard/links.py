"""The emulated links of a testbed: shows them, degrades or cuts one, and restores it."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

from shared.bounded_transport import BoundedTransport
from shared.errors import DimeeError, NotFound, TierUnreachable, from_payload
from shared.field_types import FreeText
from shared.http_fetch import fetch, json_of
from shared.redaction import without_credentials

TIMEOUT_S = 3.0
MAX_REPORT_BYTES = 100_000
SHOWN = ("start_spec", "outage", "presets", "outages")


class ChangeLink(BaseModel):
    """Body of a change: a profile such as ``3g``, an outage, or null for the link at the start."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    spec: FreeText | None


class LinkControls:
    """Client of the relays' control endpoints, by hop. Its methods block."""

    def __init__(self, controls: dict[str, str]) -> None:
        self._controls = controls
        self._http = httpx.Client(
            transport=BoundedTransport(), trust_env=False, timeout=httpx.Timeout(TIMEOUT_S)
        )

    def __len__(self) -> int:
        return len(self._controls)

    def states(self) -> list[dict[str, Any]]:
        """Return the state of each link; one whose relay gives none has a ``problem``."""
        states = []
        for hop in self._controls:
            try:
                states.append(self._state(hop, "GET", "/link"))
            except DimeeError as error:
                unknown: dict[str, Any] = {
                    "presets": [],
                    "outages": [],
                    "start_spec": None,
                    "outage": None,
                }
                states.append({"hop": hop, "spec": None, "problem": error.message, **unknown})
        return states

    def change(self, hop: str, spec: str | None) -> dict[str, Any]:
        """Change a link and return its state; None restores the link that it started with."""
        if hop not in self._controls:
            known = ", ".join(self._controls) or "none"
            raise NotFound(
                f"hop: the gateway knows no link {hop[:40]!r} (known: {known}); start a testbed "
                "with links: dimee up --link mobile-edge=4g"
            )
        if spec is None:
            return self._state(hop, "PUT", "/schedule", {})
        return self._state(hop, "PUT", "/link", {"spec": spec})

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _state(
        self, hop: str, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        url = self._controls[hop]
        try:
            response = fetch(self._http, method, url + path, json=body, max_bytes=MAX_REPORT_BYTES)
        except httpx.HTTPError as error:
            raise TierUnreachable(
                f"the link {hop} at {without_credentials(url)} cannot be reached "
                f"({type(error).__name__}); is its testbed running?"
            ) from None
        report = json_of(response)
        if response.status_code != httpx.codes.OK:
            raise from_payload(report, response.status_code)
        if not isinstance(report, dict) or not isinstance(report.get("spec"), str):
            raise TierUnreachable(
                f"the server at {without_credentials(url)} is no link; correct its address in "
                "DIMEE_LINK_CONTROLS"
            )
        shown = {name: report.get(name) for name in SHOWN}
        return {"hop": hop, "spec": report["spec"], "problem": None, **shown}
