"""Export a run: pools, heads, bundle, measurements and card."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lab.evaluate.bundle_report import exit_table, policy_table
from lab.evaluate.choose_lambda import (
    DEFAULT_LIMIT,
    TooFewExamples,
    ValidatedSetting,
    embedding_classifier_of_run,
    fit_default_heads,
)
from lab.evaluate.groups import with_groups
from lab.evaluate.pools import Pools, make_pools
from lab.evaluate.samples import Samples, samples_of_bundle, samples_of_run
from lab.export.card import write_card
from lab.export.layers import write_bundle
from lab.export.loss_check import (
    MAX_LOSS,
    check_losses,
    exit_losses,
    few_texts_warning,
    loss_table,
)
from lab.export.samples import choose_samples
from lab.models.embedding_tables import mean_embeddings
from lab.models.run import Run
from shared.bundle.correctness_heads import Floats
from shared.bundle.loading import POLICY_WITH_HEADS, POLICY_WITHOUT_HEADS, load_bundle
from shared.domain import InputText
from shared.inference.tokenizer import TextEncoder
from shared.pricing.cost_model import CostModel


def pools_of_run(
    run: Run,
    data: str | None,
    mobile_layers: int,
    edge_layers: int,
    mu: float,
    cloud_fee: float | None,
    max_tokens: int,
) -> Pools:
    """Run Algorithm 1 and eqs. 2, 3 on the run's validation part, at the bundle's token limit."""
    validation = run.split(data).validation
    encoder = TextEncoder(run.tokenizer_file, min(max_tokens, run.model.family.position_limit))
    rows = [encoder.encode(row.text, row.pair) for row in validation]
    samples = replace(
        samples_of_run(run, validation, "validation"),
        embedding_NH=mean_embeddings(run.model, rows),
    )
    cost_model = CostModel.paper(run.model.layers, cloud_fee)
    return make_pools(samples, cost_model, mobile_layers, edge_layers, mu)


def with_heads(
    embedding_classifier: tuple[Floats, Floats], validation: Samples, pools: Pools
) -> tuple[Pools, ValidatedSetting | None, str | None]:
    """Return the pools with heads for ``cascade-routing``, and the setting chosen for them.

    With too few examples the pools have no heads and the setting is None. The third value is a
    sentence for the user if the default policy is not ``cascade-routing``, or uses the cloud alone.
    """
    try:
        heads, chosen = fit_default_heads(embedding_classifier, validation, pools, DEFAULT_LIMIT)
    except TooFewExamples as error:
        return pools, None, _no_heads_note(error, pools)
    return replace(pools, heads=heads), chosen, _all_cloud_note(chosen, len(validation))


def _no_heads_note(error: TooFewExamples, pools: Pools) -> str:
    unused = " and ".join(pools.unused_tiers)
    return (
        f"this bundle runs the policy {POLICY_WITHOUT_HEADS} by default, because {error.reason}"
        + (f"; at its α no pool sends texts to the {unused}" if unused else "")
        + f"; for {POLICY_WITH_HEADS}, {error.remedy}, train again and export"
    )


def _all_cloud_note(chosen: ValidatedSetting, examples: int) -> str | None:
    if chosen.setting.price > 0:
        return None
    return (
        f"the default policy {POLICY_WITH_HEADS} sends every text to the cloud, because on "
        f"{examples:,} validation examples no cheaper setting keeps the drop below "
        f"{DEFAULT_LIMIT.max_drop:g} points with a margin of {DEFAULT_LIMIT.standard_errors:g} "
        "standard error; give more validation examples, or choose another policy (--policy)"
    )


@dataclass(frozen=True)
class Exported:
    """Card of an exported bundle, and ``notes`` for the user: a sentence each."""

    card: str
    notes: list[str]


def export_run(
    run: Run,
    target: Path,
    data: str | None,
    max_loss: float = MAX_LOSS,
    with_samples: bool = True,
    **options: Any,
) -> Exported:
    """Export ``run`` to ``target``, measure the bundle on both parts, and write manifest and card.

    ``with_samples`` puts texts of the reported part into the bundle as its samples.

    Raises `InvalidInput`, and writes no bundle, if the exported precision loses significantly more
    than ``max_loss`` points at any exit (`lab.export.loss_check`). This is tested on the reported
    part, which did not choose the fp32 weights; the test chooses nothing.
    """
    split = run.split(data)
    held_out = with_groups(samples_of_run(run, split.validation, "validation"), split.validation)
    pools = pools_of_run(run, data, **options)
    embedding_classifier = embedding_classifier_of_run(run, split.train)
    pools, chosen, policy_note = with_heads(embedding_classifier, held_out, pools)
    max_tokens: int = options["max_tokens"]
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "bundle"
        write_bundle(run, pools, trial, max_tokens, {})
        bundle = load_bundle(trial)
        accuracy = accuracy_of(pools, chosen, run.facts["split"])
        for name, examples in (("validation", split.validation), ("reported", split.test)):
            full, shipped = samples_of_run(run, examples, name), samples_of_bundle(bundle, examples)
            accuracy[name] = exit_table(full, shipped, run.task.metric)
        losses = exit_losses(full, shipped)
        accuracy["loss"] = loss_table(losses, max_loss)
        accuracy["policies"] = policy_table(bundle, shipped)
    check_losses(losses, max_loss)
    samples: list[InputText] = []
    if with_samples:
        labels = bundle.manifest.labels
        samples = choose_samples(split.test, labels, shipped.confidence_NE, run.facts["seed"])
    write_bundle(run, pools, target, max_tokens, accuracy, samples)
    few_texts = few_texts_warning(len(split.test), len(losses), max_loss)
    return Exported(
        write_card(load_bundle(target)), [note for note in (policy_note, few_texts) if note]
    )


def accuracy_of(pools: Pools, chosen: ValidatedSetting | None, split: str) -> dict[str, Any]:
    """Return the manifest's figures of α and of the default policy's setting."""
    accuracy: dict[str, Any] = {
        "candidates": [
            [round(option.alpha, 4), round(option.expected_reward, 5), *option.pool_sizes]
            for option in pools.candidates
        ],
        "split": split,
    }
    if chosen is not None:
        figures = {name: value for name, value in asdict(chosen).items() if name != "setting"}
        accuracy["default_policy"] = (
            asdict(DEFAULT_LIMIT)
            | asdict(chosen.setting)
            | {name: round(value, 4) for name, value in figures.items()}
        )
    return accuracy
