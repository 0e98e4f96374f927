"""One text classified for the page, with the explanation of its way through the tiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from mobile_client.gateway.dashboard.live_stats import follow_attempts
from mobile_client.gateway.protocols.calls import Answer
from mobile_client.insight.explain import explain
from mobile_client.insight.explanation import Explanation, TierView
from mobile_client.insight.replay import ReplayContext, with_conditions
from mobile_client.insight.request_trace import read_request
from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from shared.bundle.loading import tier_layers
from shared.domain import Reason, State, Tier
from shared.errors import DimeeError, InvalidInput
from shared.field_types import CostCeiling, DeadlineMs, Word
from shared.ledger.entry import LedgerEntry
from shared.policies.cascade_routing import CascadeRouting, as_cascade_routing
from shared.serving.responses import error_response, json_response

RECORDED = (
    "queue_ms",
    "compute_ms",
    "network_ms",
    "resumed_after",
    "sent_bytes",
    "received_bytes",
)
"""Fields of an attempt's ledger entry that are added to its explanation."""


class ClassifyText(BaseModel):
    """Body of the page's call; the options are those of ``POST /v1/classify``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: str
    pair: str | None = None
    policy: Word | None = None
    deadline_ms: DeadlineMs | None = None
    mode: Word | None = None
    max_cost_lambda: CostCeiling | None = Field(default=None)


async def classify_and_explain(
    mobile: MobileService, answer: Answer, message: Request, request: ClassifyText
) -> Response:
    """Classify a text and return the answer with its explanation.

    If no tier answers, the response has the status of the error and, beside the error, the
    explanation of the attempts.
    """
    options = RequestOptions(
        request.policy, request.deadline_ms, request.mode, request.max_cost_lambda
    )
    pairs = None if request.pair is None else [request.pair]
    with follow_attempts() as entries:
        try:
            (outcome,) = await answer(message, [request.text], pairs, options)
        except InvalidInput as error:
            raise _of_one_text(error) from None
    explained, problem = None, None
    try:
        explained = await _explained(mobile, request, entries) if entries else None
    except DimeeError as error:
        problem = error.message
    facts: dict[str, Any] = {"explanation": explained, "explanation_problem": problem}
    if not isinstance(outcome, DimeeError):
        result = outcome.model_dump(mode="json")
        return json_response({"result": result, **facts}, 200)
    facts |= {
        "attempts": explained["attempts"] if explained else [],
        "request_id": entries[0].request_id if entries else None,
    }
    headers = {
        name: value
        for name, value in error_response(outcome).headers.items()
        if name == "retry-after"
    }
    return json_response(outcome.payload() | facts, outcome.status, headers)


def _of_one_text(error: InvalidInput) -> InvalidInput:
    """Return the error with the fields of `ClassifyText` in place of those of a list of texts."""
    text, field = error.message, error.field or ""
    for several, one in (
        ("texts.0", "text"),
        ("pairs.0", "pair"),
        ("texts", "text"),
        ("pairs", "pair"),
    ):
        if field == several:
            text, field = text.replace(several, one, 1), one
    return type(error)(text, field=field or None, limit=error.limit)


async def replay_context(mobile: MobileService) -> ReplayContext:
    """Return the context of explanations and replays, in the present conditions of the mobile."""
    runtime, settings = mobile.runtime, mobile.settings
    policy = None
    if runtime.bundle.correctness_heads() is not None:
        policy = as_cascade_routing(await runtime.policy(CascadeRouting.name))
        now = policy.conditions  # requests change it
        policy = with_conditions(
            policy, replace(now, delay_ms=dict(now.delay_ms), up={}, left_ms=None)
        )
    layers = tier_layers(runtime.bundle, settings.mobile_layers, settings.edge_layers)
    certified = settings.certificate is not None
    return ReplayContext(runtime.bundle, policy, layers.mobile.last, layers.edge.last, certified)


async def _explained(
    mobile: MobileService, request: ClassifyText, entries: Sequence[LedgerEntry]
) -> dict[str, Any]:
    path = read_request(entries).path
    explanation = explain(read_request(entries), await replay_context(mobile))
    exits = await _exits(mobile, request, path)
    result = asdict(explanation)
    result["tiers"] = [
        asdict(view) | _choice(view, explanation) | {"exits": exits.get(view.tier, [])}
        for view in explanation.tiers
    ]
    result["attempts"] = [
        asdict(view) | {name: getattr(entry, name) for name in RECORDED}
        for view, entry in zip(explanation.attempts, path, strict=True)
    ]
    return result


def _choice(view: TierView, explanation: Explanation) -> dict[str, Any]:
    """Return whether the tier was the first one, and the figure that the policy compared."""
    name = explanation.decided_by
    return {
        "chosen": view.tier is explanation.attempts[0].tier,
        "figure": {
            "name": name.replace("_", " ") if name else None,
            "value": getattr(view, name) if name else None,
        },
    }


async def _exits(
    mobile: MobileService, request: ClassifyText, path: Sequence[LedgerEntry]
) -> dict[Tier, list[dict[str, float]]]:
    """Return layer and confidence of the exits that each tier has tried, as far as it says so.

    The servers report the exit that answered. The mobile's layers run once more, which gives the
    same confidences.
    """
    exits: dict[Tier, list[dict[str, float]]] = {}
    for entry in path:
        if entry.state is not State.ANSWERED or entry.exit_layer is None:
            continue
        if entry.tier is not Tier.MOBILE:
            exits[entry.tier] = [{"layer": entry.exit_layer, "confidence": entry.confidence or 0.0}]
        elif entry.reason is not Reason.FAIL_OVER or Tier.MOBILE not in exits:
            confidences = await mobile.runtime.exit_confidences(
                request.text, request.pair, entry.exit_layer
            )
            exits[Tier.MOBILE] = [
                {"layer": layer, "confidence": confidence}
                for layer, confidence in enumerate(confidences, 1)
            ]
    return exits
