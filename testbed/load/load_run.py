"""Run of ``dimee load`` that Ctrl-C, SIGTERM or SIGHUP may end early, with a partial report."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from shared.credentials import Credentials
from shared.signals import EndedBySignal
from testbed.load.http_client import Answer, HttpClient, run
from testbed.load.ledger_check import verify_ledger
from testbed.load.runner import Action, ActionRecord, PlannedRequest, run_plan
from testbed.load.sample import Sample


class LoadRun:
    """Samples, actions and the ledger's verification of a run, as far as it came."""

    def __init__(self) -> None:
        self.actions: list[ActionRecord] = []
        self.ledger: dict[str, Any] = {"consistent": None, "error": "not verified: stopped"}
        self.stopped: EndedBySignal | None = None
        """The signal that ended the run early."""
        self.planned = 0
        self.seconds = 0.0
        """Time from the first request until the end of the run."""
        self._samples: list[Sample] = []
        self._ended: set[int] = set()

    @property
    def samples(self) -> list[Sample]:
        """Samples in the order of the plan, without requests that had not ended."""
        return [sample for sample in self._samples if sample.number in self._ended]

    @contextmanager
    def until_signal(self) -> Iterator[None]:
        """End the block at a signal; raise it only if there is nothing to report yet."""
        try:
            yield
        except (KeyboardInterrupt, EndedBySignal) as error:
            self._stop(error)
            if not self._ended:
                raise

    def send(
        self,
        client: HttpClient,
        plan: Sequence[PlannedRequest],
        deadline_ms: float,
        actions: Sequence[Action],
    ) -> None:
        """Send the requests of the plan until a signal, and run the actions."""
        self.planned = len(plan)
        self._samples = [
            Sample(number, request.at_s, request.text) for number, request in enumerate(plan)
        ]
        began = time.monotonic()
        try:
            run(run_plan(client, plan, deadline_ms, self._receive, actions, records=self.actions))
        except (KeyboardInterrupt, EndedBySignal) as error:
            self._stop(error)
        self.seconds = time.monotonic() - began
        if not self._ended and self.stopped is not None:
            raise self.stopped

    def verify(self, ledger_url: str, credentials: Credentials, warm_up: Sequence[Sample]) -> None:
        """Verify the ledger, which must have every answered request and those of the warm-up."""
        sent = (*warm_up, *self.samples)
        answered = sum(sample.ending == "answered" for sample in sent)
        self.ledger = verify_ledger(ledger_url, answered, credentials=credentials)

    def facts(self, duration_s: float) -> dict[str, Any]:
        """Return what the report says of the end of the run: ``partial`` and ``duration_s``."""
        if self.stopped is None:
            return {"partial": None, "duration_s": duration_s}
        ended_s = min(self.seconds, duration_s)
        return {
            "partial": {
                "signal": self.stopped.signal.name,
                "after_s": round(ended_s, 1),
                "of_s": duration_s,
                "planned": self.planned,
            },
            "duration_s": ended_s,
        }

    def _receive(self, answer: Answer) -> None:
        self._samples[answer.number].read(answer)
        self._ended.add(answer.number)

    def _stop(self, error: KeyboardInterrupt | EndedBySignal) -> None:
        if self.stopped is None:
            self.stopped = (
                error if isinstance(error, EndedBySignal) else EndedBySignal(signal.SIGINT)
            )


def describe_partial(report: dict[str, Any]) -> str | None:
    """Return the sentence that marks a partial report; None for any other."""
    partial = report.get("partial")
    return partial and (
        f"partial report: {partial['signal']} ended the run after {partial['after_s']:g} of "
        f"{partial['of_s']:g} s; the report has the {report['requests']:,} of "
        f"{partial['planned']:,} requests that had ended by then"
    )
