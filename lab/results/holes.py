"""The known holes of the paper, each with its measured effect."""

from __future__ import annotations

from statistics import median
from typing import Any

from lab.results import paper
from lab.results.commands import all_cloud
from lab.results.gamma import break_even, kept_decisions
from lab.results.load import Result
from lab.results.text import NOT_RUN, between, change, number, of, percent, share, span, table

FIXED = "dimee-fixed"


def holes_section(results: list[Result]) -> list[str]:
    """Seven holes, in the order in which a reader meets them."""
    lines = ["## The holes, with their effect"]
    if not results:
        return [*lines, "", f"{NOT_RUN}."]
    for section in (_fee, _baselines, _unsure, _prices, _adaptive, _metric, _bandits):
        lines += ["", *section(results)]
    return lines


def _name(result: Result) -> list[str]:
    return [f"{result.task_title}, {result.encoder_title}", result.on]


def _ends(result: Result) -> tuple[str, str]:
    fees = sorted(result["by_cloud_fee"], key=float)
    return fees[0], fees[-1]


def first_saving(result: Result, method: str = FIXED) -> str | None:
    """The smallest γ of the sweep at which ``method``, made anew, is cheaper than all-cloud."""
    for fee in sorted(result["by_cloud_fee"], key=float):
        if result["by_cloud_fee"][fee]["methods"][method]["cost_change"] < 0:
            return str(fee)
    return None


def _fee(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        low, high = _ends(result)
        sweep, even = result["by_cloud_fee"], break_even(result)
        first = first_saving(result)
        rows.append([
            *_name(result),
            *(f"{percent(sweep[fee]['methods'][FIXED]['cost_change'])} "
              f"(α = {number(sweep[fee]['alpha'])})" for fee in (low, high)),
            "never" if first is None else f"γ = {float(first):g}",
            *(percent(kept_decisions(result, float(fee))) for fee in (low, high)),
            "never" if even is None else f"γ > {number(even)}",
        ])  # fmt: skip
    low, high = _ends(results[0])
    header = ["run", "split", f"made anew, γ = {float(low):g}", f"γ = {float(high):g}",
              "first saves at", f"decisions kept, γ = {float(low):g}", f"γ = {float(high):g}",
              "saves at"]  # fmt: skip
    fee = results[0]["cost_model"]["cloud_fee"]
    return [
        "### 1. γ, the cloud's fee, has no value in the paper, and the sign of the saving is γ's",
        "",
        f"The preset takes γ = {number(fee, 0)} λ.",
        "Made anew, the method chooses α, pools and centroids for each γ; at α = 1 no exit is ever "
        "sure enough, everything is sent to the cloud and nothing is saved.",
        "Kept, the decisions of the preset are billed at another γ; then the saving begins where "
        "oc + γ exceeds the mean cost of a request that the cloud does not answer.",
        "",
        *table(header, rows, left=2),
    ]


def _baselines(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        low, high = _ends(result)
        preset = f"{result['cost_model']['cloud_fee']:.1f}"
        sweep = result["by_cloud_fee"]
        cells = []
        for fee in (low, preset, high):
            point = sweep.get(fee)
            if point is None:
                cells += [NOT_RUN, NOT_RUN]
                continue
            fixed, bert = (point["methods"][name]["cost_lambda"] for name in (FIXED, "bert"))
            cells += [percent(100 * (fixed / point["all_cloud"] - 1), 0),
                      percent(100 * (fixed / bert - 1), 0)]  # fmt: skip
        rows.append([*_name(result), *cells])
    low, high = _ends(results[0])
    fee = results[0]["cost_model"]["cloud_fee"]
    names = [f"γ = {value:g}" for value in (float(low), fee, float(high))]
    header = ["run", "split", *(f"{name}, {of}" for name in names for of in ("cloud", "phone"))]
    return [
        "### 2. Two descriptions of the baseline",
        "",
        f"BERT on the phone costs {paper.PAPER_LAYERS_COST:g} λ whatever γ is, BERT in the cloud "
        f"oc + γ; they agree only at γ = {number(fee, 0)}, here {number(all_cloud(results[0]))} λ.",
        "The same `dimee-fixed` (made anew at each γ) against the one and the other:",
        "",
        *table(header, rows, left=2),
    ]


def _unsure(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        unsure, wrong = (result["auroc"][f"phone_{kind}"]["share"] for kind in ("unsure", "wrong"))
        mobile, fixed = result.method("mobile"), result.method(FIXED)
        rows.append([
            *_name(result), share(unsure), share(wrong),
            f"{change(mobile['against_cloud'])} "
            f"{between(mobile['against_cloud_interval'], signed=True)}",
            share(fixed["shares"]["mobile"]), number(mobile["mean_exit"]),
        ])  # fmt: skip
    header = ["run", "split", "not sure at any exit of the phone (%)", "phone wrong (%)",
              "phone alone against cloud (points)", "`dimee-fixed` answers on the phone (%)",
              "phone's mean exit"]  # fmt: skip
    return [
        "### 3. Low confidence on the phone is answered all the same",
        "",
        "The paper routes before any layer runs and never asks again: an example that the phone is "
        "not sure of (C_i < α at every exit up to m) is answered at layer m.",
        "How many of all examples those are, and what the phone's answers are worth:",
        "",
        *table(header, rows, left=2),
    ]


def reactions(result: Result) -> tuple[int, int, int]:
    """(prices swept, those at which α changed, those at which accuracy changed without α)."""
    whole = moved = other = 0
    preset = result["by_price"]
    for factors in preset.values():
        home = factors["1.0"]
        for factor, point in factors.items():
            if factor == "1.0":
                continue
            whole += 1
            if point["alpha"] != home["alpha"]:
                moved += 1
            elif point["methods"][FIXED]["accuracy"] != home["methods"][FIXED]["accuracy"]:
                other += 1
    return whole, moved, other


def _dear_phone(result: Result) -> dict[str, Any]:
    point: dict[str, Any] = result["by_price"]["mobile_layer"]["4.0"]
    return point


def _prices(results: list[Result]) -> list[str]:
    rows, free = [], 0
    for result in results:
        whole, moved, other = reactions(result)
        free += other
        fixed, edge = result.method(FIXED), result.method("edge")
        dear = _dear_phone(result)
        rows.append([
            *_name(result), of(moved, whole), of(other, whole),
            f"{number(4 * result['m'] * result['cost_model']['mobile_layer'], 0)} of "
            f"{number(all_cloud(result), 0)}",
            f"{percent(dear['methods'][FIXED]['cost_change'])} "
            f"(α = {number(dear['alpha'])}, {number(result['alpha'])} at the preset)",
            f"{change(fixed['accuracy'] - edge['accuracy'])} at "
            f"{change(fixed['cost_lambda'] - edge['cost_lambda'])} λ",
        ])  # fmt: skip
    header = ["run", "split", "prices that moved α", "answers changed, α did not",
              "m layers at 4 λm, of all-cloud (λ)", "`dimee-fixed` at 4 λm",
              "`dimee-fixed` less edge alone (points, λ)"]  # fmt: skip
    ahead = sum(r.method("edge")["cost_lambda"] < r.method(FIXED)["cost_lambda"] for r in results)
    return [
        "### 4. Distance ignores prices",
        "",
        "The nearest centroid is the nearest whatever a tier costs; prices reach the decision "
        "through α only, by the pools that it makes.",
        f"Of all prices swept (a quarter to four times the preset's), answers changed in {free} "
        "cases without α having moved: while α stays, a phone that has become as dear as the "
        "cloud gets what it got before.",
        f"At the preset's own prices the edge alone is cheaper than `{FIXED}` in "
        f"{of(ahead, len(results))} cases.",
        "",
        *table(header, rows, left=2),
    ]


def _moved(steps: list[float | None]) -> str:
    known = [step for step in steps if step is not None]
    return number(max(known)) if known else "–"


def _adaptive(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        drift = result["drift"]
        moved = drift["moved"]
        adaptive, fixed = result.method("dimee-adaptive"), result.method(FIXED)
        rows.append([
            *_name(result),
            " / ".join(f"{count:,}" for count in drift["validation_counts"]),
            *(_moved(moved[step]) if step in moved else "–" for step in ("10", "100", "1000")),
            f"{_moved(list(moved.values())[-1])} ({int(list(moved)[-1]):,})",
            share(drift["changed"]),
            f"{change(adaptive['accuracy'] - fixed['accuracy'])} at "
            f"{change(adaptive['cost_lambda'] - fixed['cost_lambda'])} λ",
        ])  # fmt: skip
    header = ["run", "split", "pools at the start", "10", "100", "1,000", "all (n)",
              "sent elsewhere (%)", "adaptive less fixed (points, λ)"]  # fmt: skip
    gains = [r.method("dimee-adaptive")["accuracy"] - r.method(FIXED)["accuracy"] for r in results]
    lines = [
        "### 5. The adaptive rule is slow, and learns from its own decisions",
        "",
        "A centroid is a running mean that starts with the whole validation pool as its weight, "
        "and the sample that moves it was put there by the rule itself: no exit is asked whether "
        "the sample was easy.",
        "How far the centroid that moves most has moved after so many examples, in gaps between "
        "centroids (a pool of a few examples moves at once, a large one hardly); adapting changes "
        f"accuracy by {span(gains)} points, median {change(median(gains))}:",
        "",
        *table(header, rows, left=2),
        "",
    ]
    return lines + _shift(results)


def _shift(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        for domain, facts in result.facts.get("shift", {}).items():
            fixed, adaptive = (facts["methods"][name] for name in (FIXED, "dimee-adaptive"))
            cells = [
                f"{number(row['accuracy'])} {between(row['accuracy_interval'])} at "
                f"{percent(row['cost_change'])}" for row in (fixed, adaptive)
            ]  # fmt: skip
            rows.append([
                *_name(result), domain, f"{facts['reported']:,}", *cells,
                change(adaptive["accuracy"] - fixed["accuracy"]), share(facts["drift"]["changed"]),
            ])  # fmt: skip
    if not rows:
        return [f"Under real shift (reviews of other goods): {NOT_RUN}."]
    header = ["run", "split", "domain", "examples", f"`{FIXED}`", "`dimee-adaptive`",
              "gain (points)", "sent elsewhere (%)"]  # fmt: skip
    return ["Under real shift (reviews of other goods, centroids of film reviews):", "",
            *table(header, rows, left=3)]  # fmt: skip


def _metric(results: list[Result]) -> list[str]:
    other = [result for result in results if result.has_other_metric]
    lines = ["### 6. 'Acc' is not accuracy everywhere", "",
             "For CoLA, MRPC and QQP the paper's 'Acc' are evidently Matthews and F1, GLUE's "
             "metrics; a change of a point of one is no point of the other.",
             "All layers, and `dimee-fixed` against them:", ""]  # fmt: skip
    if not other:
        return [*lines, f"{NOT_RUN}."]
    rows = []
    for result in other:
        cloud, fixed = result.method("cloud"), result.method(FIXED)
        rows.append([
            *_name(result), result["metric"], number(cloud["accuracy"]), number(cloud["metric"]),
            number(result["majority"]), change(fixed["against_cloud"]),
            change(result.metric_change(FIXED)),
        ])  # fmt: skip
    header = ["run", "split", "metric", "accuracy (%)", "metric (%)", "commonest class (%)",
              "change in accuracy", "change in metric"]  # fmt: skip
    return lines + table(header, rows, left=3)


def _bandits(results: list[Result]) -> list[str]:
    names = ("adaee", "i-splitee")
    rows = []
    for result in results:
        cells = []
        for name in names:
            row = result.method(name)
            cells += [change(row["against_cloud"]), percent(row["cost_change"]),
                      share(row["shares"]["cloud"])]  # fmt: skip
        rows.append([*_name(result), str(result["layers"]), str(result["m"]), *cells])
    header = ["run", "split", "l", "m"]
    header += [f"`{name}`, {what}" for name in names
               for what in ("points", "cost", "to the cloud (%)")]  # fmt: skip
    return [
        "### 7. The bandits carry layers that the phone was not to hold",
        "",
        "I-SplitEE's arms are the l splitting layers, so the phone must hold all l layers, as for "
        "`bert` and `early-exit`, which a phone of m layers cannot run.",
        "What a bandit offloads costs twice: the layers run on the phone, and the cloud's answer.",
        "",
        *table(header, rows, left=2),
    ]
