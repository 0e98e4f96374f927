"""One simulated device: a mobile with its own link, settings, budget, breakers and outbox."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobile_client.local.model import LocalModel
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.credentials import Credentials
from shared.domain import InputText
from shared.errors import DimeeError
from shared.ledger.entry import LedgerEntry
from shared.settings import read_settings
from shared.tier_transport import TierTransport
from testbed.load.sample import Sample

SUMS = ("cost_lambda", "cost_usd", "energy_mj", "sent_bytes", "received_bytes")


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device: its number, the address that its link belongs to, its settings and its requests."""

    number: int
    class_name: str
    address: str
    settings: dict[str, Any]
    requests_per_s: float

    def mobile_settings(self) -> MobileSettings:
        """Return the settings of its mobile, beside those of the environment."""
        given = {name: value for name, value in self.settings.items() if value is not None}
        for name in ("bundle", "state_dir"):
            given[name] = Path(given[name])
        return read_settings(MobileSettings, **given)


class SimulatedDevice:
    """A device, ready for requests; the model is shared with the others of the process."""

    def __init__(self, spec: DeviceSpec, model: LocalModel) -> None:
        self.spec = spec
        settings = spec.mobile_settings()
        transport = TierTransport(Credentials.of(settings).verify, local_address=spec.address)
        # on Linux this is one clock for all processes
        self.service = MobileService(settings, transport, clock=time.monotonic, model=model)
        self.service.recorder.on_end.append(self._ended)
        self.samples: list[Sample] = []
        self._sums: Counter[str] = Counter()
        self._attempts = 0

    def _ended(self, entry: LedgerEntry) -> None:
        self._attempts += 1
        for name in SUMS:
            self._sums[name] += getattr(entry, name) or 0

    async def send(self, text: InputText, intended: float, started: float) -> None:
        """Answer a text that was meant for the time ``intended`` of `time.monotonic`."""
        sample = Sample(len(self.samples), intended - started, text)
        self.samples.append(sample)
        sample.late_ms = (time.monotonic() - intended) * 1e3
        pairs = None if text.pair is None else [text.pair]
        try:
            (outcome,) = await self.service.classify([text.text], pairs, since=intended)
        except DimeeError as error:
            outcome = error
        sample.latency_ms = (time.monotonic() - intended) * 1e3
        if isinstance(outcome, DimeeError):
            sample.read_error(outcome.status, outcome.code, outcome.request_id)
        else:
            sample.read_result(outcome)

    def report(self) -> dict[str, Any]:
        """Return its requests, and the sums of its entries in the ledger."""
        return {
            "device": self.spec.number,
            "class": self.spec.class_name,
            "attempts": self._attempts,
            **{name: self._sums[name] for name in SUMS},
            "undelivered": self.service.outbox.count_pending(),
            "samples": [_short(sample) for sample in self.samples],
        }


def _short(sample: Sample) -> dict[str, Any]:
    facts = asdict(sample)
    for name in ("text", "attempts", "label", "cost_usd", "number"):
        del facts[name]
    return facts
