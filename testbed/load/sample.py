"""One request to the mobile's gateway and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from shared.domain import InputText
from shared.wire import Classification, ClassifyResponse
from testbed.load.http_client import Answer

PATH = "/v1/classify"
ENDINGS = ("answered", "shed", "timed_out", "unavailable", "refused", "failed", "no_answer")
"""Ways to end: status 200, 429, 504, 503, another 4xx, any other status, no answer."""
_ENDING_BY_STATUS = {429: "shed", 504: "timed_out", 503: "unavailable"}
TIERS = ("mobile", "edge", "cloud")


@dataclass(slots=True)
class Sample:
    """One request as the load generator saw it; ``latency_ms`` counts from the intended time.

    ``hops_ms`` divides the latency of an answered request into parts that sum to it.
    """

    number: int
    intended_s: float
    text: InputText | None = None
    late_ms: float = 0.0
    latency_ms: float = 0.0
    ending: str = "no_answer"
    request_id: str | None = None
    error_code: str | None = None
    tier: str | None = None
    label: str | None = None
    from_chosen_tier: bool = True
    failed_over: bool = False
    escalated: bool = False
    degraded: bool = False
    cost_lambda: float = 0.0
    all_cloud_lambda: float = 0.0
    cost_usd: float = 0.0
    hops_ms: dict[str, float] = field(default_factory=dict)
    attempts: list[str] = field(default_factory=list)

    @property
    def correct(self) -> bool | None:
        """True if the answer is the text's own label; None without an answer or a label."""
        if self.label is None or self.text is None or self.text.label is None:
            return None
        return self.label == self.text.label

    def read(self, answer: Answer) -> None:
        """Fill in the outcome from an answer."""
        self.late_ms, self.latency_ms = answer.late_s * 1e3, answer.latency_s * 1e3
        if answer.status == 0:
            self.error_code = answer.error
        else:
            self.read_response(answer.status, answer.body)

    def read_response(self, status: int, content: bytes) -> None:
        """Fill in the outcome from a status and a body; the times must be set already."""
        if status != 200:
            code, request_id = (_error_fact(content, name) for name in ("code", "request_id"))
            self.read_error(status, code, request_id)
            return
        try:
            result = ClassifyResponse.model_validate_json(content).items[0].result
        except (ValidationError, IndexError):
            result = None
        if result is None:
            self.ending, self.error_code = "failed", "unknown_format"
            return
        self.read_result(result)

    def read_error(self, status: int, code: str | None, request_id: str | None) -> None:
        """Fill in an error; the times must be set already."""
        if 400 <= status < 500 and status != 429:
            self.ending = "refused"
        else:
            self.ending = _ENDING_BY_STATUS.get(status, "failed")
        self.error_code, self.request_id = code, request_id

    def read_result(self, result: Classification) -> None:
        """Fill in an answer; the times must be set already."""
        self.ending = "answered"
        self.request_id = result.request_id
        self.tier = result.tier.value
        self.label = result.label
        self.from_chosen_tier = result.from_chosen_tier
        self.failed_over = result.failed_over
        self.escalated = result.escalated
        self.degraded = result.degraded
        self.cost_lambda = result.cost.cost_lambda
        self.all_cloud_lambda = result.cost.all_cloud_lambda
        self.cost_usd = result.cost.cost_usd
        self.attempts = [
            f"{attempt.tier.value} {attempt.reason.value} {attempt.state.value}"
            for attempt in result.attempts
        ]
        self.hops_ms = self._split_latency(result)

    def _split_latency(self, result: Classification) -> dict[str, float]:
        hops = {"decision": result.decision_ms}
        failed_ms = 0.0
        for attempt in result.attempts:
            if attempt.state.value != "answered":
                failed_ms += attempt.round_trip_ms or 0.0
                continue
            for part, part_ms in (
                ("network", attempt.network_ms),
                ("queue", attempt.queue_ms),
                ("compute", attempt.compute_ms),
            ):
                if part_ms and not (attempt.tier.value == "mobile" and part == "network"):
                    name = f"{attempt.tier.value} {part}"
                    hops[name] = hops.get(name, 0.0) + part_ms
        if failed_ms:
            hops["failed attempts"] = failed_ms
        hops["mobile (other)"] = max(0.0, result.total_ms - sum(hops.values()))
        in_gateway_ms = sum(hops.values())
        hops["client to gateway"] = max(0.0, self.latency_ms - self.late_ms - in_gateway_ms)
        hops["sent late"] = self.late_ms
        return hops


def request_body(text: InputText, policy: str | None, deadline_ms: float) -> dict[str, Any]:
    """Return the body of a request to `PATH`; without a policy the mobile's own decides."""
    body: dict[str, Any] = {"texts": [text.text], "deadline_ms": deadline_ms}
    if policy is not None:
        body["policy"] = policy
    return body if text.pair is None else body | {"pairs": [text.pair]}


def _error_fact(content: bytes, name: str) -> str | None:
    try:
        return str(from_json(content)["error"][name])[:64]
    except (ValueError, LookupError, TypeError):
        return None
