"""Report of a fleet: fairness over devices, latency by class, and the cost of a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from testbed.load.fleet.fairness import fairness
from testbed.load.ledger_check import describe_ledger
from testbed.load.report import percentiles
from testbed.load.sample import ENDINGS, TIERS

FORMAT = 1
QUANTITIES = {
    "answered": "share of its requests that were answered within their deadline",
    "latency": "its mean latency, divided by the mean of its class",
    "cost": "its mean cost of an answered request in λ",
}
"""Quantities over which fairness is computed, each with one value for each device."""
EQUAL = 1e-6
"""Largest relative difference between the devices' sums and the ledger's: rounding of floats."""
_COSTS = ("cost_lambda", "cost_usd", "energy_mj", "sent_bytes", "received_bytes", "attempts")

Row = dict[str, Any]


def fleet_report(facts: Row, result: Row) -> Row:
    """Return everything that the page shows; ``result`` is that of `run_fleet`."""
    devices = result.pop("devices")
    rows = [
        sample | {"device": device["device"], "class": device["class"]}
        for device in devices
        for sample in device["samples"]
    ]
    names = [one["name"] for one in facts["mix"]["classes"]]
    answered = [row for row in rows if row["ending"] == "answered"]
    return {
        "format": FORMAT,
        **facts,
        **result,
        "devices": len(devices),
        "requests": len(rows),
        "answered": len(answered),
        "endings": _counts(rows),
        "latency_ms": percentiles([row["latency_ms"] for row in answered]),
        "sent_late_ms": percentiles([row["late_ms"] for row in rows]),
        "ledger_agrees": all(map(_agrees, result["ledger_totals"].values())),
        "undelivered": sum(device["undelivered"] for device in devices),
        "quantities": QUANTITIES,
        "fairness": {
            "all": _fairness(rows, names, facts["seed"]),
            **{
                name: _fairness([row for row in rows if row["class"] == name], names, facts["seed"])
                for name in names
            },
        },
        "classes": {
            name: _class(
                [row for row in rows if row["class"] == name],
                [device for device in devices if device["class"] == name],
            )
            for name in names
        },
        "by_device": [_device(device) for device in devices],
    }


def _agrees(sums: dict[str, float]) -> bool:
    own, ledger = sums["devices"], sums["ledger"]
    return abs(own - ledger) <= EQUAL * max(abs(own), abs(ledger))


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    endings = Counter(row["ending"] for row in rows)
    return {name: endings[name] for name in ENDINGS if endings[name]}


def _class(rows: Sequence[Row], devices: Sequence[Row]) -> Row:
    """Return the figures of one class: latency, tiers, and means of a device."""
    answered = [row for row in rows if row["ending"] == "answered"]
    network = [
        sum(ms for part, ms in row["hops_ms"].items() if part.endswith("network"))
        for row in answered
        if row["tier"] != "mobile"
    ]
    queue = [row["hops_ms"].get("mobile queue", 0.0) for row in answered]
    return {
        "devices": len(devices),
        "requests": len(rows),
        "answered": len(answered),
        "endings": _counts(rows),
        "latency_ms": percentiles([row["latency_ms"] for row in answered]),
        "network_ms": percentiles(network),
        "mobile_queue_ms": percentiles(queue),
        "answered_by": {tier: sum(row["tier"] == tier for row in answered) for tier in TIERS},
        "escalated": sum(row["escalated"] for row in answered),
        "not_from_chosen_tier": sum(not row["from_chosen_tier"] for row in answered),
        "a_device": {name: float(np.mean([device[name] for device in devices])) for name in _COSTS},
        "cost_lambda_p95_of_devices": float(
            np.percentile([device["cost_lambda"] for device in devices], 95)
        ),
    }


def _device(device: Row) -> Row:
    answered = [row for row in device["samples"] if row["ending"] == "answered"]
    latencies = [row["latency_ms"] for row in answered]
    return {
        "device": device["device"],
        "class": device["class"],
        "requests": len(device["samples"]),
        "answered": len(answered),
        "latency_ms_mean": float(np.mean(latencies)) if latencies else None,
        "latency_ms_max": max(latencies, default=None),
        **{name: device[name] for name in _COSTS},
    }


def _fairness(rows: Sequence[Row], names: Sequence[str], seed: int) -> Row:
    """Return Jain's index over each quantity; see `testbed.load.fleet.fairness`."""
    answered = [row for row in rows if row["ending"] == "answered"]
    latency_ms = {
        name: np.mean([row["latency_ms"] for row in answered if row["class"] == name])
        for name in {row["class"] for row in answered}
    }
    values = {
        "answered": (rows, [float(row["ending"] == "answered") for row in rows]),
        "latency": (answered, [row["latency_ms"] / latency_ms[row["class"]] for row in answered]),
        "cost": (answered, [row["cost_lambda"] for row in answered]),
    }
    result: Row = {"devices": len({row["device"] for row in rows})}
    for quantity, (used, numbers) in values.items():
        result[quantity] = fairness(
            np.array(numbers, float),
            np.array([row["device"] for row in used], np.int64),
            np.array([names.index(row["class"]) for row in used], np.int64),
            seed,
        )
    return result


def fleet_lines(report: Row) -> list[str]:
    """Return the main figures as lines of text."""
    lines = [
        f"{report['devices']:,} devices, {report['requests']:,} requests, "
        + ", ".join(f"{name} {count:,}" for name, count in report["endings"].items())
    ]
    for name, one in report["classes"].items():
        latency = one["latency_ms"] or {}
        shown = " / ".join(f"{latency[p]:,.0f}" for p in ("p50", "p95", "p99")) if latency else "–"
        device = one["a_device"]
        lines.append(
            f"  {name}: {one['devices']:,} devices, p50 / p95 / p99 {shown} ms, a device "
            f"{device['cost_lambda']:.1f} λ, {device['sent_bytes'] + device['received_bytes']:,.0f}"
            f" bytes, {device['energy_mj']:.1f} mJ"
        )
    for quantity in QUANTITIES:
        one = report["fairness"]["all"][quantity]
        lines.append(
            f"Jain's index, {quantity}: {shown_index(one['jain'])} "
            f"(by chance alone {shown_index(one['by_chance'])})"
        )
    agree = "agree with" if report["ledger_agrees"] else "differ from"
    lines.append(f"ledger verify: {describe_ledger(report)}; the devices' sums {agree} the ledger")
    if report["stopped"]:
        lines.insert(0, f"partial report: {report['stopped']} ended the run early")
    return lines


def shown_index(index: float | None) -> str:
    """Return an index for people."""
    return "–" if index is None else f"{index:.4f}"
