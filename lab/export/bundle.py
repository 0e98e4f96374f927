"""Export a run: pools, heads, bundle, measurements and card."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lab.evaluate.bundle_report import exit_table, policy_table
from lab.evaluate.choose_lambda import (
    DEFAULT_LIMIT,
    FOLDS,
    ValidatedSetting,
    embedding_classifier_of_run,
    fit_default_heads,
)
from lab.evaluate.groups import with_groups
from lab.evaluate.pools import Pools, make_pools
from lab.evaluate.samples import Samples, samples_of_bundle, samples_of_run
from lab.export.card import write_card
from lab.export.layers import write_bundle
from lab.export.samples import choose_samples
from lab.models.embedding_tables import mean_embeddings
from lab.models.run import Run
from shared.bundle.correctness_heads import Floats
from shared.bundle.loading import load_bundle
from shared.domain import InputText
from shared.errors import InvalidInput
from shared.inference.tokenizer import TextEncoder
from shared.pricing.cost_model import CostModel

MAX_LOSS = 0.5
"""Largest loss of accuracy by the exported precision at any exit, in points."""


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
    encoder = TextEncoder(run.tokenizer_file, max_tokens)
    rows = [encoder.encode(row.text, row.pair) for row in validation]
    samples = replace(
        samples_of_run(run, validation, "validation"),
        embedding_NH=mean_embeddings(run.model, rows),
    )
    cost_model = CostModel.paper(run.model.layers, cloud_fee)
    return make_pools(samples, cost_model, mobile_layers, edge_layers, mu)


def with_heads(
    embedding_classifier: tuple[Floats, Floats], validation: Samples, pools: Pools
) -> tuple[Pools, ValidatedSetting | None]:
    """Return the pools with heads for ``cascade-routing``, unless there are too few examples."""
    if len(validation) < 20 * FOLDS:
        return pools, None
    heads, chosen = fit_default_heads(embedding_classifier, validation, pools, DEFAULT_LIMIT)
    return replace(pools, heads=heads), chosen


def export_run(
    run: Run, target: Path, data: str | None, with_samples: bool = True, **options: Any
) -> str:
    """Export ``run`` to ``target``, measure the bundle on both parts, and write manifest and card.

    ``with_samples`` puts sample texts of the reported part into the bundle.
    Returns the card. Raises `InvalidInput`, and writes no bundle, if the exported precision loses
    more than `MAX_LOSS` points at any exit on the reported part.
    """
    split = run.split(data)
    held_out = with_groups(samples_of_run(run, split.validation, "validation"), split.validation)
    pools = pools_of_run(run, data, **options)
    embedding_classifier = embedding_classifier_of_run(run, split.train)
    pools, chosen = with_heads(embedding_classifier, held_out, pools)
    max_tokens: int = options["max_tokens"]
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "bundle"
        write_bundle(run, pools, trial, max_tokens, {})
        bundle = load_bundle(trial)
        accuracy = accuracy_of(pools, chosen, run.facts["split"])
        for name, examples in (("validation", split.validation), ("reported", split.test)):
            shipped = samples_of_bundle(bundle, examples)
            accuracy[name] = exit_table(samples_of_run(run, examples, name), shipped)
        accuracy["policies"] = policy_table(bundle, shipped)
    _check_loss(accuracy["reported"])
    samples: list[InputText] = []
    if with_samples:
        confidence_NE, labels = shipped.confidence_NE, bundle.manifest.labels
        samples = choose_samples(split.test, labels, confidence_NE, run.facts["seed"])
    write_bundle(run, pools, target, max_tokens, accuracy, samples)
    return write_card(load_bundle(target))


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


def _check_loss(table: dict[str, Any]) -> None:
    pairs = zip(table["fp32"]["accuracy"], table["shipped"]["accuracy"], strict=True)
    for layer, (full, shipped) in enumerate(pairs, start=1):
        if full - shipped > MAX_LOSS:
            raise InvalidInput(
                f"precision: exit {layer} loses {full - shipped:.2f} points in the bundle, "
                f"more than {MAX_LOSS}; the bundle was not written"
            )
