"""``docs/results/certified.md`` from its JSON."""

from __future__ import annotations

from typing import Any

from lab.reports.text import change, code, number, of, percent, table

TITLES = {
    "glue": "calibrated on GLUE's validation file",
    "paper": "calibrated on its test part, a tenth of the training file",
}


def page(facts: dict[str, Any]) -> str:
    """The page as markdown."""
    lines = [
        "# A certified drop beside the measured one",
        "",
        f"`dimee calibrate` at δ = {facts['delta']:g}: half of the examples order the settings of "
        "`cascade-routing`, the other half (n) tests them, and the last that passes is certified. "
        "[How to read a certificate, and what it does not say](../how-to/certify-a-drop.md).",
        "Every number comes from `extra/certified.json`; these commands write both:",
        "",
        *code(
            [
                "dimee train --task sst2 --data ../shared/glue/sst2 --split paper --out RUN",
                "dimee export RUN BUNDLE2",
                "python -m lab.studies.certified bundles/sst2-minilm BUNDLE2 --data ../shared/glue",
            ]
        ),
    ]
    for bundle in facts["bundles"]:
        lines += _bundle(bundle)
    return "\n".join(lines) + "\n"


def _bundle(facts: dict[str, Any]) -> list[str]:
    others = facts["others"]
    lines = [
        "",
        f"## Bundle `{facts['bundle_id']}`, {TITLES[facts['split']]}",
        "",
        f"{facts['task']}, `{facts['encoder']}`, {facts['layers']} layers of "
        f"{facts['hidden_size']}; {facts['examples']:,} examples that neither exits nor heads have "
        f"seen; all-cloud is right on {facts['all_cloud_accuracy']:.2f} %.",
        "",
    ]
    header = ["promise", "at most", "n", "certified: Λ, α", "bound", "judged half"]
    if others:
        lines += [
            f"*GLUE's validation file*: the chosen setting on its {others:,} whole sentences, "
            "which had no part in anything, ± 1.96 standard errors. They are harder than the "
            "phrases that the certificate speaks of: it promises nothing about them.",
            "",
        ]
        header.append("GLUE's validation file")
    header.append("cost")
    lines += table(header, [_certified(row, bool(others)) for row in facts["certified"]], left=2)
    refusals = list(dict.fromkeys(row["refusal"] for row in facts["certified"] if "refusal" in row))
    if refusals:
        lines += ["", "What the command says instead of a certificate:", ""]
        lines += code([f"dimee: {refusal}" for refusal in refusals])
    kept = facts["kept_back"][0]
    lines += [
        "",
        f"Is it kept? {kept['of']} times at random, half of the examples calibrates and the other "
        f"half ({kept['kept']:,}) is measured. *Above*: how often more was lost there than was "
        "promised; what is measured is a sample too, so that chance alone puts some above.",
        "",
        *table(
            ["promise", "at most", "n", "certified", "lost, mean", "largest", "above", "cost"],
            [_kept_back(row) for row in facts["kept_back"]],
            left=2,
        ),
    ]
    return lines


def _promise(row: dict[str, Any]) -> list[str]:
    what = {"accuracy": "drop of accuracy (points)", "consistency": "other answers (%)"}
    return [what[row["metric"]], f"{row['max_drop']:g}", f"{row['n']:,}"]


def _certified(row: dict[str, Any], others: bool) -> list[str]:
    if "refusal" in row:
        return [*_promise(row), "cannot be certified", "–", "–", *(["–"] if others else []), "–"]
    cells = [*_promise(row), f"{row['price']:g}, {row['alpha']:g}", number(row["bound"])]
    cells.append(_lost(row["metric"], row["judged_loss"]))
    if others:
        cells.append(f"{_lost(row['metric'], row['others_loss'])} ± {row['others_error']:.2f}")
    return [*cells, percent(row["cost_change"])]


def _kept_back(row: dict[str, Any]) -> list[str]:
    cells = [*_promise(row), of(row["certified"], row["of"])]
    if not row["certified"]:
        return [*cells, "–", "–", "–", "–"]
    lost = [_lost(row["metric"], row[name]) for name in ("loss", "largest_loss")]
    return [*cells, *lost, of(row["above"], row["certified"]), percent(row["cost_change"])]


def _lost(metric: str, loss: float) -> str:
    """A drop may be a gain, and bears a sign; a share of other answers may not."""
    return change(loss) if metric == "accuracy" else number(loss)
