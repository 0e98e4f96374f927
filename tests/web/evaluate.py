"""Evaluates shared cases in Python and compares results with those of the file."""

from __future__ import annotations

from functools import partial
from typing import Any

from shared.domain import Tier
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook
from tests.web import text_cases
from tests.web.session_cases import run_session

Bounds = dict[str, float]
BOUNDS: dict[str, Bounds] = {
    "encode": {"": 0.0},
    "features": {"": 1e-5},
    "decide": {"": 1e-4},
    "classify": {"": 0.0, "probabilities": 0.03, "exits": 0.03},
    "prices": {"": 1e-9},
    "session": {"": 1e-9, "confidence": 0.03, "decision": 1e-3}
    | dict.fromkeys(("queue_ms", "compute_ms", "tier_ms"), 1.0)
    | dict.fromkeys(("round_trip_ms", "network_ms", "delay_ms", "spent_ms"), 1.0),
}
"""Largest difference of a number by kind of case and field, which holds for all below the field.

Milliseconds differ because Python's virtual clock passes a little at each reading, confidences
because WebAssembly and the native runtime round differently.
"""


def evaluate(case: dict[str, Any], routers: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a case."""
    given = case["input"]
    match case["kind"]:
        case "encode":
            return text_cases.refused(text_cases.encode, given)
        case "features":
            return text_cases.features(given)
        case "classify":
            return text_cases.classify(given)
        case "decide":
            return text_cases.refused(partial(text_cases.decide, routers=routers), given)
        case "prices":
            return prices(given)
        case _:
            return run_session(given)


def prices(given: dict[str, Any]) -> dict[str, Any]:
    """Return the prices of an attempt."""
    model, book = CostModel(**given["cost_model"], layers=6), PriceBook(**given["price_book"])
    tier = Tier(given["tier"])
    measured = given["compute_ms"], given["moved_bytes"]
    return {
        "attempt": model.attempt(tier, given["exit_layer"]),
        "sent": model.wasted(tier, sent=True),
        "not_sent": model.wasted(tier, sent=False),
        "all_cloud": model.all_cloud,
        "usd": book.usd(tier, *measured),
        "energy_mj": book.mobile_energy_mj(tier, *measured),
    }


def difference(
    found: Any, expected: Any, bounds: Bounds, bound: float | None = None, path: str = ""
) -> str | None:
    """Return the first difference of two JSON values, with its place; None if there is none."""
    bound = bounds[""] if bound is None else bound
    if isinstance(expected, dict) and isinstance(found, dict):
        if found.keys() != expected.keys():
            return f"{path}: has {sorted(found)} instead of {sorted(expected)}"
        keys: list[Any] = list(expected)
    elif isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            return f"{path}: has {len(found)} items instead of {len(expected)}"
        keys = list(range(len(expected)))
    else:
        return None if _equal(found, expected, bound) else f"{path}: {found!r}, not {expected!r}"
    for key in keys:
        inner = bounds.get(key, bound)
        place = difference(found[key], expected[key], bounds, inner, f"{path}.{key}")
        if place is not None:
            return place
    return None


def _equal(found: Any, expected: Any, bound: float) -> bool:
    if _is_number(found) and _is_number(expected):
        return bool(abs(found - expected) <= bound)
    return type(found) is type(expected) and bool(found == expected)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
