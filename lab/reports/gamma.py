"""What γ does to a saving, in closed form, for a policy that keeps its decisions."""

from __future__ import annotations

from lab.reports.commands import all_cloud
from lab.reports.load import Result


def outside_cloud(result: Result, method: str = "dimee-fixed") -> tuple[float, float]:
    """(λ a request without what the cloud takes, share answered by the cloud).

    Exact for a policy that never escalates: each answer of the cloud costs oc + γ, and no other
    cost contains γ.
    """
    row = result.method(method)
    cloud = float(row["shares"]["cloud"])
    return float(row["cost_lambda"]) - cloud * all_cloud(result), cloud


def kept_decisions(result: Result, cloud_fee: float, method: str = "dimee-fixed") -> float:
    """Cost against all-cloud (%) at another γ, the decisions unchanged."""
    outside, cloud = outside_cloud(result, method)
    whole = float(result["cost_model"]["offload_cloud"]) + cloud_fee
    return 100 * ((outside + cloud * whole) / whole - 1)


def break_even(result: Result, method: str = "dimee-fixed") -> float | None:
    """The γ above which the unchanged decisions save; None where all goes to the cloud."""
    outside, cloud = outside_cloud(result, method)
    if cloud >= 1:
        return None
    return outside / (1 - cloud) - float(result["cost_model"]["offload_cloud"])
