"""Effects of γ, prices and α on the cost and the answers of ``dimee-fixed``."""

from __future__ import annotations

from lab.reports.load import Result

FIXED = "dimee-fixed"


def cost_without_cloud(result: Result, method: str = FIXED) -> tuple[float, float]:
    """Return (λ a request without the cloud's part, share of answers from the cloud).

    Exact for a policy that never escalates: each cloud answer costs oc + γ, and no other cost
    contains γ.
    """
    row = result.method(method)
    cloud = float(row["shares"]["cloud"])
    return float(row["cost_lambda"]) - cloud * result.all_cloud, cloud


def cost_at_fee(result: Result, cloud_fee: float, method: str = FIXED) -> float:
    """Return the cost against all-cloud (%) at another γ, with unchanged decisions."""
    outside, cloud = cost_without_cloud(result, method)
    all_cloud = float(result["cost_model"]["offload_cloud"]) + cloud_fee
    return 100 * ((outside + cloud * all_cloud) / all_cloud - 1)


def break_even_fee(result: Result, method: str = FIXED) -> float | None:
    """Return the γ above which unchanged decisions save; None if the cloud answers all."""
    outside, cloud = cost_without_cloud(result, method)
    if cloud >= 1:
        return None
    return outside / (1 - cloud) - float(result["cost_model"]["offload_cloud"])


def first_saving_fee(result: Result, method: str = FIXED) -> str | None:
    """Return the least γ of the sweep at which ``method``, refitted for it, saves; or None."""
    for fee in sorted(result["by_cloud_fee"], key=float):
        if result["by_cloud_fee"][fee]["methods"][method]["cost_change"] < 0:
            return str(fee)
    return None


def price_reactions(result: Result) -> tuple[int, int, int]:
    """Return (prices swept, prices that changed α, prices that changed answers but not α)."""
    swept = changed_alpha = changed_answers = 0
    for points in result["by_price"].values():
        preset = points["1.0"]
        for factor, point in points.items():
            if factor == "1.0":
                continue
            swept += 1
            if point["alpha"] != preset["alpha"]:
                changed_alpha += 1
            elif point["methods"][FIXED]["accuracy"] != preset["methods"][FIXED]["accuracy"]:
                changed_answers += 1
    return swept, changed_alpha, changed_answers


def accuracy_over_price(result: Result, price: str) -> float:
    """Return the change in accuracy of `FIXED` (points) from a quarter to four times a price."""
    low, high = (
        result["by_price"][price][factor]["methods"][FIXED]["accuracy"]
        for factor in ("0.25", "4.0")
    )
    return round(float(high - low), 4)
