"""Today's requests at another cloud fee or link, for the page's sliders."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from mobile_client.insight.replay import ReplayContext
from mobile_client.insight.request_trace import read_request
from mobile_client.insight.whatif import Interval, Scenario, WhatIfReport, what_if
from shared.domain import Tier
from shared.errors import InvalidInput
from shared.ledger.client import LedgerClient
from shared.link_profiles import LINKS
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import CostModel

MAX_FEE_LAMBDA = 1e6
MAX_COUNT = 1_000


class WhatIf(BaseModel):
    """Scenario: γ in λ and a link profile, each None for the present one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gamma: Annotated[float, Field(ge=0, le=MAX_FEE_LAMBDA, allow_inf_nan=False)] | None = None
    link: str | None = None
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 200

    def scenario(self, today: CostModel) -> Scenario:
        """Return the scenario that starts from today's prices; raise `InvalidInput`."""
        if self.link is not None and self.link not in LINKS:
            raise InvalidInput(f"link: must be one of {', '.join(LINKS)}", field="link")
        fee = today.cloud_fee if self.gamma is None else self.gamma
        return Scenario(
            replace(today, cloud_fee=fee), None if self.link is None else LINKS[self.link]
        )


def compare(client: LedgerClient, scenario: WhatIf, context: ReplayContext) -> dict[str, Any]:
    """Replay the last requests of cascade routing, and return a row before and one after."""
    policy = context.policy
    today = context.bundle.cost_model if policy is None else policy.conditions.cost_model
    changed = scenario.scenario(today)
    entries = client.last_requests(scenario.count, CascadeRouting.name)
    report = what_if([read_request(one) for one in entries], context, changed)
    return {
        "rows": [_row("before", report), _row("after", report)],
        "requests": report.requests,
        "rerouted": report.rerouted,
        "left_out": report.left_out,
        "notes": report.notes,
    }


def _row(name: str, report: WhatIfReport) -> dict[str, Any]:
    before = name == "before"
    measures: dict[str, Interval] = {
        measure.name: measure.before if before else measure.after for measure in report.measures
    }
    prices = report.prices_before if before else report.prices_after
    cost, saving = measures["cost λ"], measures.get("saving")
    return {
        "name": name,
        "gamma": prices.cloud_fee,
        "policy": CascadeRouting.name,
        "cost_lambda": cost.mean,
        "cost_lambda_range": [cost.low, cost.high],
        "all_cloud_lambda": prices.all_cloud,
        "saving": None if saving is None else saving.mean,
        "shares": {tier.value: measures[f"{tier.value} answers"].mean for tier in Tier},
        "asked_first": {tier.value: measures[f"{tier.value} asked first"].mean for tier in Tier},
        "expected_accuracy": measures["expected accuracy"].mean,
        "total_ms": measures["latency ms"].mean,
    }
