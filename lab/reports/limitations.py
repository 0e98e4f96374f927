"""``limitations.md``: the limitations of the paper, each with its measured effect."""

from __future__ import annotations

from statistics import median
from typing import Any

from lab.reports import paper
from lab.reports.commands import all_cloud
from lab.reports.gamma import break_even, kept_decisions
from lab.reports.load import Result
from lab.reports.text import NOT_RUN, between, change, number, of, percent, share, span, table

FIXED = "dimee-fixed"


HEAD = (
    "# Limitations of the paper",
    "",
    "This page shows seven limitations of the paper's method and report, each with its measured "
    "effect. `python -m lab.reports` wrote it from the JSONs in `data/` "
    "([commands](data.md#the-commands)). Prices are those of section IV-D; costs are changes "
    "against all-cloud unless a column says otherwise.",
)


def limitations_page(results: list[Result]) -> str:
    """Seven limitations, in the order in which a reader meets them."""
    lines = list(HEAD)
    if not results:
        return "\n".join([*lines, "", f"{NOT_RUN}."]) + "\n"
    for section in (_fee, _baselines, _unsure, _prices, _adaptive, _metric, _bandits):
        lines += ["", *section(results)]
    return "\n".join(lines) + "\n"


def _name(result: Result) -> list[str]:
    return [result.run_title, f"`{result.on}`"]


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
    header = ["run", "report", f"made anew, γ = {float(low):g}", f"γ = {float(high):g}",
              "first saves at", f"decisions kept, γ = {float(low):g}", f"γ = {float(high):g}",
              "saves at"]  # fmt: skip
    fee = results[0]["cost_model"]["cloud_fee"]
    return [
        "## 1. γ, the fee of the cloud, has no value, and decides whether anything is saved",
        "",
        f"The preset takes γ = {number(fee, 0)} λ. The effect of another γ on `{FIXED}`, in two "
        "ways:",
        "",
        "- *made anew*: α, pools and centroids are chosen for each γ. At α = 1 no exit is "
        "confident enough, everything is sent to the cloud and nothing is saved.",
        "- *decisions kept*: the decisions of the preset are billed at another γ. They save where "
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
    header = [
        "run",
        "report",
        *(f"{name}, {where}" for name in names for where in ("cloud", "mobile")),
    ]
    return [
        "## 2. Two descriptions of the baseline",
        "",
        "Section IV-B puts BERT on the mobile, the caption of Table I puts it in the cloud.",
        f"On the mobile it costs {paper.MOBILE_BASELINE_COST:g} λ whatever γ is, in the cloud "
        f"oc + γ. The two agree only at γ = {number(fee, 0)} λ, at {number(all_cloud(results[0]))} "
        "λ.",
        f"Cost of the same `{FIXED}` (made anew at each γ) against the one and the other:",
        "",
        *table(header, rows, left=2),
    ]


def _unsure(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        unsure, wrong = (result["auroc"][f"mobile_{kind}"]["share"] for kind in ("unsure", "wrong"))
        mobile, fixed = result.method("mobile"), result.method(FIXED)
        rows.append([
            *_name(result), share(unsure), share(wrong),
            f"{change(mobile['against_cloud'])} "
            f"{between(mobile['against_cloud_interval'], signed=True)}",
            share(fixed["shares"]["mobile"]), number(mobile["mean_exit"]),
        ])  # fmt: skip
    header = ["run", "report", "below α at every exit of the mobile (%)", "mobile wrong (%)",
              "mobile alone against cloud (points)", "answered on the mobile by `dimee-fixed` (%)",
              "mean exit of the mobile"]  # fmt: skip
    return [
        "## 3. The mobile answers even at low confidence",
        "",
        "The paper routes before any layer runs and does not escalate. Where the mobile's "
        "confidence stays below α at every exit up to m, it still answers at layer m (section "
        "III-E).",
        "How many of all examples these are, and how accurate the mobile is:",
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


def _dear_mobile(result: Result) -> dict[str, Any]:
    point: dict[str, Any] = result["by_price"]["mobile_layer"]["4.0"]
    return point


def _prices(results: list[Result]) -> list[str]:
    rows, free = [], 0
    for result in results:
        whole, moved, other = reactions(result)
        free += other
        fixed, edge = result.method(FIXED), result.method("edge")
        dear = _dear_mobile(result)
        rows.append([
            *_name(result), of(moved, whole), of(other, whole),
            f"{number(4 * result['m'] * result['cost_model']['mobile_layer'], 0)} of "
            f"{number(all_cloud(result), 0)}",
            f"{percent(dear['methods'][FIXED]['cost_change'])} "
            f"(α = {number(dear['alpha'])}, {number(result['alpha'])} at the preset)",
            f"{change(fixed['accuracy'] - edge['accuracy'])} at "
            f"{change(fixed['cost_lambda'] - edge['cost_lambda'])} λ",
        ])  # fmt: skip
    header = ["run", "report", "prices that moved α", "answers changed at the same α",
              "m layers at 4 λm, of all-cloud (λ)", "`dimee-fixed` at 4 λm",
              "`dimee-fixed` less edge alone (points, λ)"]  # fmt: skip
    ahead = sum(r.method("edge")["cost_lambda"] < r.method(FIXED)["cost_lambda"] for r in results)
    return [
        "## 4. The distance ignores prices",
        "",
        "A text goes to the tier of the nearest centroid whatever that tier costs. Prices change "
        "the decision only through α and the pools that follow from it (eq. 2).",
        f"Each price was swept from a quarter to four times the preset's. Answers changed at an "
        f"unchanged α in {free} cases.",
        f"At the preset's own prices the edge alone is cheaper than `{FIXED}` in "
        f"{of(ahead, len(results))} runs.",
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
    header = ["run", "report", "pools at the start", "10", "100", "1,000", "all (n)",
              "sent elsewhere (%)", "adaptive less fixed (points, λ)"]  # fmt: skip
    gains = [r.method("dimee-adaptive")["accuracy"] - r.method(FIXED)["accuracy"] for r in results]
    lines = [
        "## 5. The adaptive rule is slow, and learns from its own decisions",
        "",
        "A centroid is a running mean whose initial weight is the size of its validation pool "
        "(Algorithm 2): the larger the pool, the slower the centroid. The rule itself assigns the "
        "example that moves the centroid; no exit confirms that the example was easy.",
        "The table shows how far the centroid that moved most has moved after so many examples, in "
        "units of the distance to the nearest other centroid at the start.",
        f"Adapting changes accuracy by {span(gains)} points, median {change(median(gains))}.",
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
        return [f"On reviews of other goods: {NOT_RUN} ([why](data.md#what-was-not-run))."]
    header = ["run", "report", "domain", "examples", f"`{FIXED}`", "`dimee-adaptive`",
              "gain (points)", "sent elsewhere (%)"]  # fmt: skip
    return ["On reviews of other goods, with the centroids of film reviews:", "",
            *table(header, rows, left=3)]  # fmt: skip


def _metric(results: list[Result]) -> list[str]:
    other = [result for result in results if result.has_other_metric]
    lines = ["## 6. 'Acc' is not accuracy everywhere", "",
             "For CoLA the paper's 'Acc' must be Matthews correlation, for QQP and probably MRPC "
             "F1. A drop in points of one is not a drop in points of the other.",
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
    header = ["run", "report", "metric", "accuracy (%)", "metric (%)", "most frequent class (%)",
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
    header = ["run", "report", "l", "m"]
    header += [f"`{name}`, {what}" for name in names
               for what in ("points", "cost", "to the cloud (%)")]  # fmt: skip
    return [
        "## 7. Three baselines need all layers on the mobile",
        "",
        "`bert` and `early-exit` run all l layers on the mobile, and each arm of `i-splitee` is "
        "one of the l splitting layers. A mobile that holds m layers cannot run them.",
        "What `adaee` or `i-splitee` offloads is billed twice: the layers on the mobile, and the "
        "answer of the cloud.",
        "",
        *table(header, rows, left=2),
    ]
