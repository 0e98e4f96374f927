"""The emulated links of a testbed: shows them, degrades or cuts one, and restores it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from shared.errors import DimeeError, NotFound, TierUnreachable
from shared.field_types import FreeText
from shared.link_control import LinkControl

TIMEOUT_S = 3.0
SHOWN = ("start_spec", "outage", "presets", "outages")


class ChangeLink(BaseModel):
    """Body of a change: a profile such as ``3g``, an outage, or null for the link at the start."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    spec: FreeText | None


class LinkControls:
    """Client of the relays' control endpoints, by hop. Its methods block."""

    def __init__(self, urls: dict[str, str]) -> None:
        self._controls = {hop: LinkControl(hop, url, TIMEOUT_S) for hop, url in urls.items()}

    def __len__(self) -> int:
        return len(self._controls)

    def states(self) -> list[dict[str, Any]]:
        """Return the state of each link; one whose relay gives none has a ``problem``."""
        states = []
        for hop, control in self._controls.items():
            try:
                states.append(_state(hop, control.report()))
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
        control = self._controls.get(hop)
        if control is None:
            known = ", ".join(self._controls) or "none"
            raise NotFound(
                f"hop: the gateway knows no link {hop[:40]!r} (known: {known}); start a testbed "
                "with links: dimee up --link mobile-edge=4g"
            )
        return _state(hop, control.run_schedule() if spec is None else control.change(spec))


def _state(hop: str, report: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(report.get("spec"), str):
        raise TierUnreachable(
            f"the server of the link {hop} is no link; correct its address in DIMEE_LINK_CONTROLS"
        )
    shown = {name: report.get(name) for name in SHOWN}
    return {"hop": hop, "spec": report["spec"], "problem": None, **shown}
