"""A run's pools and bundle, measured as shipped, with the card that says so."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lab.evaluate.bundle_report import exit_table, policy_table
from lab.evaluate.choose_lambda import FOLDS, SHIPPED, Kept, exit0_of_run, priced_heads
from lab.evaluate.groups import with_groups
from lab.evaluate.pools import Pools, make_pools
from lab.evaluate.samples import Samples, samples_of_bundle, samples_of_run
from lab.export.card import write_card
from lab.export.layers import write_bundle
from lab.models.embedding_tables import mean_embeddings
from lab.models.run import Run
from shared.bundle.correctness_heads import Floats
from shared.bundle.loading import load_bundle
from shared.errors import InvalidInput
from shared.inference.tokenizer import TextEncoder
from shared.pricing.cost_model import CostModel

MAX_LOSS = 0.5


def pools_of_run(
    run: Run,
    data: str | None,
    mobile_layers: int,
    edge_layers: int,
    mu: float,
    cloud_fee: float | None,
    max_tokens: int,
) -> Pools:
    """Algorithm 1 and eqs. 2, 3 on the run's validation split, cut at the bundle's limit."""
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
    exit0: tuple[Floats, Floats], validation: Samples, pools: Pools
) -> tuple[Pools, Kept | None]:
    """The pools with heads for the policy ``cascade-routing``; without, where too few examples."""
    if len(validation) < 20 * FOLDS:
        return pools, None
    heads, kept = priced_heads(exit0, validation, pools, SHIPPED)
    return replace(pools, heads=heads), kept


def export_run(run: Run, target: Path, data: str | None, **options: Any) -> str:
    """Export, measure as shipped on both splits, and write manifest and card with the figures.

    Raises `InvalidInput` where the shipped precision loses more than `MAX_LOSS` points at any exit
    of the reported split: such a bundle is not written.
    """
    split = run.split(data)
    held_out = with_groups(samples_of_run(run, split.validation, "validation"), split.validation)
    pools = pools_of_run(run, data, **options)
    exit0 = exit0_of_run(run, split.train)
    pools, kept = with_heads(exit0, held_out, pools)
    max_tokens: int = options["max_tokens"]
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "bundle"
        write_bundle(run, pools, trial, max_tokens, {})
        bundle = load_bundle(trial)
        accuracy = accuracy_of(pools, kept, run.facts["split"])
        for name, examples in (("validation", split.validation), ("reported", split.test)):
            shipped = samples_of_bundle(bundle, examples)
            accuracy[name] = exit_table(samples_of_run(run, examples, name), shipped)
        accuracy["policies"] = policy_table(bundle, shipped)
    _check_loss(accuracy["reported"])
    write_bundle(run, pools, target, max_tokens, accuracy)
    return write_card(load_bundle(target))


def accuracy_of(pools: Pools, kept: Kept | None, split: str) -> dict[str, Any]:
    """The manifest's part on α and of the default policy's setting."""
    accuracy: dict[str, Any] = {
        "candidates": [
            [round(option.alpha, 4), round(option.expected_reward, 5), *option.pool_sizes]
            for option in pools.candidates
        ],
        "split": split,
    }
    if kept is not None:
        figures = {name: value for name, value in asdict(kept).items() if name != "setting"}
        accuracy["default_policy"] = (
            asdict(SHIPPED)
            | asdict(kept.setting)
            | {name: round(value, 4) for name, value in figures.items()}
        )
    return accuracy


def _check_loss(table: dict[str, Any]) -> None:
    pairs = zip(table["fp32"]["accuracy"], table["shipped"]["accuracy"], strict=True)
    for layer, (full, shipped) in enumerate(pairs, start=1):
        if full - shipped > MAX_LOSS:
            raise InvalidInput(
                f"precision: exit {layer} loses {full - shipped:.2f} points as shipped, "
                f"more than {MAX_LOSS}; the bundle was not written"
            )
