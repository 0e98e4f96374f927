"""The card of a bundle: what it is and what was measured, from its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.bundle.loading import Bundle
from shared.pricing.cost_model import CLOUD_FEES

_SPLITS = {
    "glue": ("held out of the training file by sentence", "GLUE's validation file"),
    "paper": ("a tenth of the training file", "another tenth of the training file"),
}


def write_card(bundle: Bundle) -> str:
    """Write ``README.md`` into the bundle and return it."""
    manifest, accuracy = bundle.manifest, bundle.manifest.accuracy
    facts = manifest.training
    held, reported = _SPLITS[accuracy["split"]]
    costs = bundle.cost_model
    lines = [
        f"# {manifest.task} on {manifest.encoder}",
        "",
        f"{manifest.layers} layers of {manifest.hidden_size}, an exit head after each "
        f"({facts['pooling']} pooling), trained jointly (eq. 1, and as the commands say), "
        f"seed {manifest.seed}. Labels: {', '.join(manifest.labels)}. "
        f"Licence of the encoder: {manifest.licence}. As shipped: {manifest.precision}.",
        "",
        f"m = {manifest.mobile_layers}, n = {manifest.edge_layers}, α = {manifest.alpha:.4f}, "
        f"at most {manifest.max_tokens} tokens. Pools: "
        + ", ".join(f"{count:,} {name}" for name, count in manifest.pool_sizes.items())
        + ".",
        "",
        "Every figure here comes from these commands:",
        "",
        "```text",
        *_commands(facts),
        "```",
    ]
    for name, title in (
        ("reported", f"Reported: {reported}"),
        ("validation", f"Validation: {held}"),
    ):
        lines += _exits(title, accuracy[name])
    lines += [
        "",
        "The reported examples were used for nothing else. The validation examples chose the "
        "epoch, α, the pools and the default policy's setting.",
        *_default_policy(accuracy),
        "",
        "## Policies on the reported examples, in file order, as shipped",
        "",
        f"Costs in λ: λm = {costs.mobile_layer:g}, λe = {costs.edge_layer:g} a layer, "
        f"oe = {costs.offload_edge:g}, oc = {costs.offload_cloud:g}, γ = {costs.cloud_fee:g}; "
        "the last columns vary γ.",
        "",
        "| policy | accuracy | mobile | edge | cloud | λ | against all-cloud | "
        + " | ".join(f"γ = {gamma:g}" for gamma in CLOUD_FEES)
        + " |",
        "|---|" + "---|" * (6 + len(CLOUD_FEES)),
    ]
    for name, row in accuracy["policies"].items():
        shares = " | ".join(f"{row['shares'][tier]:.1%}" for tier in ("mobile", "edge", "cloud"))
        sweep = " | ".join(f"{row['by_cloud_fee'][str(gamma)]:+.1f} %" for gamma in CLOUD_FEES)
        lines.append(
            f"| `{name}` | {row['accuracy']:.2f} | {shares} | {row['cost_lambda']:.2f} | "
            f"{row['cost_against_all_cloud']:+.1f} % | {sweep} |"
        )
    lines += [
        "",
        f"## Expected reward of α (eqs. 2, 3; μ = {manifest.mu:g})",
        "",
        "| α | expected reward | easy | moderate | hard |",
        "|---|---|---|---|---|",
    ]
    for alpha, reward, *sizes in accuracy["candidates"]:
        counts = " | ".join(f"{size:,}" for size in sizes)
        lines.append(f"| {alpha:.4f} | {reward:.5f} | {counts} |")
    lines += [
        "",
        "## Limits",
        "",
        "English sentences like those of the training data. Confidence is the largest softmax "
        f"probability, {_calibrated(facts)}. Longer texts are cut, and the answer says so. "
        f"Data hash (training file): `{manifest.data_hash[:16]}`; bundle `{bundle.bundle_id}`.",
    ]
    card = "\n".join(lines) + "\n"
    (bundle.path / "README.md").write_text(card, encoding="utf-8")
    return card


def _default_policy(accuracy: dict[str, Any]) -> list[str]:
    facts = accuracy.get("default_policy")
    if facts is None:
        return []
    value, cloud = (accuracy["policies"][name] for name in ("cascade-routing", "cloud"))
    drop, count = cloud["accuracy"] - value["accuracy"], accuracy["reported"]["examples"]
    read = "the text and its answers" if facts["reads"] == "text" else "its answers alone"
    return [
        "",
        "## The default policy",
        "",
        f"`cascade-routing` at Λ = {facts['price']:g} and α = {facts['alpha']:.4f}; "
        f"its heads read {read}. It is the cheapest setting whose drop against all-cloud, "
        f"cross-fitted on the validation examples, is at most {facts['max_drop']:g} points with a "
        f"margin of {facts['standard_errors']:g} standard error"
        + (", on all of them and on the longer half by itself:" if facts["longer_half"] else ":"),
        "",
        "| | drop (points) | standard error |",
        "|---|---|---|",
        f"| all | {facts['drop']:.2f} | {facts['drop_error']:.2f} |",
        f"| longer half | {facts['long_drop']:.2f} | {facts['long_drop_error']:.2f} |",
        "",
        f"Its cost there is {facts['cost_change']:+.1f} % against all-cloud. On the reported "
        f"examples, which chose nothing, the drop is {drop:.2f} points "
        f"({round(drop * count / 100)} of {count:,} examples) at "
        f"{value['cost_against_all_cloud']:+.1f} %: they are not drawn like the validation "
        "examples, and the promise speaks of those.",
    ]


def _calibrated(facts: dict[str, Any]) -> str:
    if "temperatures" not in facts:
        return "and not calibrated"
    return "at a temperature for each exit that was fitted on the validation examples"


def _commands(facts: dict[str, Any]) -> list[str]:
    """The commands that made the bundle, in order; runs are numbered as they come."""
    lines: list[str] = []
    last = _add_run(facts, lines)
    lines.append(f"dimee export RUN{last} BUNDLE")
    if facts.get("refitted"):
        lines.append("dimee refit BUNDLE NEW --data DATA")
    return lines


def _add_run(run: dict[str, Any], lines: list[str]) -> int:
    """Add the commands of ``run`` and of those that it comes from; its number."""
    if run.get("temperatures"):
        whole = {key: value for key, value in run.items() if key != "temperatures"}
        first = _add_run(whole, lines)
        lines.append(f"dimee temper RUN{first} --out RUN{len(lines) + 1}")
        return len(lines)
    if mixed := run.get("mixed"):
        alone = {key: value for key, value in run.items() if key != "mixed"}
        numbers = [_add_run(part, lines) for part in (alone, *mixed["with"])]
        share = f" --share {mixed['shares'][0]:g}" if len(numbers) == 2 else ""
        names = " ".join(f"RUN{number}" for number in numbers)
        lines.append(f"dimee mix {names}{share} --out RUN{len(lines) + 1}")
        return len(lines)
    start = f" --start-from RUN{_add_run(run['before'], lines)}" if run.get("before") else ""
    number = len(lines) + 1
    lines.append(
        f"dimee train --task {run['task']} --data DATA --encoder {run['encoder']} "
        f"--split {run['split']} --pooling {run['pooling']} --epochs {run['epochs']} "
        f"--batch-size {run['batch_size']} --learning-rate {run['learning_rate']} "
        f"--seed {run['seed']}{_exit_options(run)}{start} --out RUN{number}"
    )
    return number


def _exit_options(run: dict[str, Any]) -> str:
    given = ""
    if run.get("loss", "sum") != "sum":
        given += f" --loss {run['loss']}"
    if run.get("distil"):
        given += f" --distil {run['distil']:g}"
    if run.get("token_dropout"):
        given += f" --token-dropout {run['token_dropout']:g}"
    if run.get("teacher"):
        given += f" --teacher {Path(run['teacher']).name}"
    if run.get("head_hidden"):
        given += f" --head-hidden {run['head_hidden']}"
    return given


def _exits(title: str, table: dict[str, Any]) -> list[str]:
    lines = [
        "",
        f"## {title} ({table['examples']:,} examples)",
        "",
        "| exit | accuracy fp32 | as shipped | confidence fp32 | as shipped | probability moves |",
        "|---|---|---|---|---|---|",
    ]
    for i, moved in enumerate(table["largest_probability_difference"]):
        full, shipped = table["fp32"], table["shipped"]
        lines.append(
            f"| {i + 1} | {full['accuracy'][i]:.2f} | {shipped['accuracy'][i]:.2f} | "
            f"{full['confidence'][i]:.3f} | {shipped['confidence'][i]:.3f} | ≤ {moved:.3f} |"
        )
    return lines
