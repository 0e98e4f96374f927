"""``cascade-routing.md``: what the default policy ``cascade-routing`` reaches beyond the paper."""

from __future__ import annotations

from typing import Any

from lab.reports.load import BASE, DEFAULT_POLICY, MEAN_DROP, MEAN_POLICY, SPLITS, Result, chosen
from lab.reports.text import NOT_RUN, UNKNOWN, between, change, number, percent, table

GOAL_SAVING = 65.0
"""Percent against all-cloud that SST-2 is to save at BERT-base's size at the default drop."""

PARTS = ("heads alone", "escalation alone", "both")
ROUTERS = ("nearest centroid", "length", "nearest neighbours", "logistic regression")


def cascade_page(results: list[Result]) -> str:
    """The whole page."""
    known = [result for result in results if result.has_value]
    lines = [
        "# The default policy `cascade-routing`",
        "",
        "This page shows what the default policy `cascade-routing` reaches, at several allowed "
        "drops, and what its parts bring. `python -m lab.reports` wrote it from the JSONs in "
        "`data/` ([commands](data.md#the-commands)).",
        "",
        "`cascade-routing` starts and escalates where P(right) − Λ · cost is highest "
        "([how](../decisions/0006-cascade-routing.md)). Its heads, Λ and α come from the "
        "validation part, cross-fitted in five folds. An allowed drop is a drop on that "
        "part; the reported examples choose nothing. Against the paper's methods: "
        "[comparisons](comparisons.md).",
    ]
    if not known:
        return "\n".join([*lines, "", f"{NOT_RUN}."]) + "\n"
    fee = known[0]["cost_model"]["cloud_fee"]
    lines += [f"All costs are against all-cloud at γ = {fee:g} λ.", ""]
    for section in (_goal, _chosen, _ablation, _router, _pair_features, _frontiers):
        lines += section(known)
    return "\n".join(lines).rstrip() + "\n"


def _names(result: Result) -> list[str]:
    return [result.run_title, f"`{result.on}`"]


def _goal(results: list[Result]) -> list[str]:
    """The goal on SST-2 at BERT-base's size, beside what was measured."""
    rows = []
    for on in SPLITS:
        result = chosen(results, BASE, on).get("sst2")
        if result is None:
            continue
        for name in (DEFAULT_POLICY, MEAN_POLICY):
            row = result.method(name)
            saves = row["cost_change"] <= -GOAL_SAVING
            keeps = row["against_cloud"] >= -float(MEAN_DROP)
            rows.append([*_names(result), f"`{name}`", _points(row), _cost(row),
                         "yes" if saves else "no", "yes" if keeps else "no"])  # fmt: skip
    title = ["## SST-2 at BERT-base's size", ""]
    if not rows:
        return [*title, f"{NOT_RUN}.", ""]
    header = ["run", "report", "setting", "accuracy (points)", "cost",
              f"at least {GOAL_SAVING:g} % cheaper", f"drop at most {MEAN_DROP}"]  # fmt: skip
    return [
        *title,
        f"The goal: at least {GOAL_SAVING:g} % cheaper than all-cloud at a measured drop of at "
        f"most {MEAN_DROP} points, with {MEAN_DROP} points allowed on the validation part. "
        f"`{DEFAULT_POLICY}` is the setting that a bundle ships with (the drop there plus one "
        "standard error, on all texts and on the longer half), "
        f"`{MEAN_POLICY}` the one by the mean drop alone.",
        "",
        *table(header, rows, left=3),
        "",
    ]


def _points(row: dict[str, Any]) -> str:
    interval = between(row["against_cloud_interval"], signed=True)
    return f"{change(row['against_cloud'])} {interval}"


def _cost(row: dict[str, Any]) -> str:
    interval = between(row["cost_change_interval"], 1, signed=True)
    return f"{percent(row['cost_change'])} {interval}"


def _chosen(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        for drop, row in result["cascade_routing"]["chosen"].items():
            shares = " / ".join(number(100 * share, 0) for share in row["shares"].values())
            rows.append(
                [
                    *_names(result),
                    drop,
                    f"{row['alpha']:.4g}",
                    f"{row['price']:.3g}",
                    row["reads"],
                    _points(row),
                    percent(row["cost_change"]),
                    shares,
                    _row(result, "dimee-adaptive"),
                    _row(result, "true-difficulty"),
                    _row(result, "cheapest-right"),
                ]
            )
    header = ["run", "report", "allowed drop (points)", "α", "Λ", "heads read",
              "accuracy (points)", "cost", "mobile / edge / cloud (%)",
              "`dimee-adaptive`", "`true-difficulty`", "`cheapest-right`"]  # fmt: skip
    return [
        "## At three allowed drops, and as shipped",
        "",
        "`true-difficulty` and `cheapest-right` are oracles: the first knows each text's pool, the "
        "second its label. Heads read the text and its answers (*text*), or the confidence of its "
        "answers alone (*answers*). The setting `default` is the one that a bundle ships with.",
        "",
        *table(header, rows, left=2),
        "",
    ]


def _row(result: Result, name: str) -> str:
    return _brief(result.method(name))


def _brief(row: dict[str, Any]) -> str:
    return f"{change(row['against_cloud'])} at {percent(row['cost_change'], 0)}"


def _ablation(results: list[Result]) -> list[str]:
    """Gains of heads and of escalation by themselves."""
    rows = [
        [*_names(result), drop, _row(result, "dimee-fixed"),
         *(_brief(parts[name]) for name in PARTS)]
        for result in results
        for drop, parts in result["cascade_routing"]["ablation"].items()
    ]  # fmt: skip
    header = ["run", "report", "allowed drop (points)", "`dimee-fixed` (distances)",
              "heads, no escalation", "all to the edge, then escalation",
              "both: `cascade-routing`"]  # fmt: skip
    return [
        "## What each part brings",
        "",
        "Each part at its own settings, chosen on the validation part. [Exits](exits.md) shows "
        "what the exit heads bring. Going on from a hidden state saves milliseconds on the next "
        "tier, which λ does not count ([resume](resume.md)).",
        "",
        *table(header, rows, left=2),
        "",
    ]


def _router(results: list[Result]) -> list[str]:
    rows = []
    for result in results:
        found = result["cascade_routing"]["auroc"]
        others = result["auroc"]["mobile_unsure"]
        rows.append([*_names(result), number(100 * found["share_exiting"], 1),
                     _auroc(found["mobile_exits"]),
                     *(_auroc(others.get(name)) for name in ROUTERS)])  # fmt: skip
    header = [
        "run",
        "report",
        "texts that exit on the mobile (%)",
        "correctness head of `cascade-routing`",
        *ROUTERS,
    ]
    return [
        "## Predicting, before any layer runs, that the mobile will exit",
        "",
        "AUROC for 'some exit of the mobile reaches α', at the paper's α. The head sees how "
        "clearly a linear classifier on the mean word embedding decides; the others see the "
        "embedding or the length. Chance is 0.5.",
        "",
        *table(header, rows, left=2),
        "",
    ]


def _auroc(value: float | None) -> str:
    return UNKNOWN if value is None else number(value, 3)


def _pair_features(results: list[Result]) -> list[str]:
    """AUROC of the heads with and without the features of text pairs, where measured."""
    known = [r for r in results if r["cascade_routing"].get("pair_features")]
    if not known:
        return []
    names = list(known[0]["cascade_routing"]["pair_features"]["before"])
    rows = []
    for result in known:
        found = result["cascade_routing"]["pair_features"]
        cells = [_auroc(found[when].get(name)) for name in names for when in ("before", "after")]
        rows.append([*_names(result), *cells])
    header = ["run", "report"]
    header += [f"{_feature(name)}, {when}" for name in names for when in ("without", "with")]
    return [
        "## Features of text pairs",
        "",
        "AUROC of the correctness heads on tasks of text pairs, before any layer runs: without and "
        "with the features that compare the two texts of a pair.",
        "",
        *table(header, rows, left=2),
        "",
    ]


def _feature(name: str) -> str:
    known = {"edge_sure": "an exit of the edge is confident", "edge_right": "the edge is right"}
    return known.get(name, name.replace("_", " "))


def _frontiers(results: list[Result]) -> list[str]:
    drops = list(results[0]["cascade_routing"]["frontier"])
    rows = []
    for result in results:
        curve = result["cascade_routing"]["frontier"]
        rows.append([*_names(result), *(_brief(curve[drop]) for drop in drops)])
    header = ["run", "report", *drops]
    return [
        "## Measured, by allowed drop",
        "",
        "Columns are the points that the validation part may lose.",
        "",
        *table(header, rows, left=2),
        "",
    ]
