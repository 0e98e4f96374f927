"""A run's pools and bundle, measured as shipped, with the card that says so."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.card import write_card
from lab.export import write_bundle
from lab.judge import exit_table, policy_table
from lab.pools import Pools, make_pools
from lab.price import FOLDS, SHIPPED, exit0_of_run, priced_heads
from lab.run import Run
from lab.samples import samples_of_bundle, samples_of_run
from lab.tables import mean_embeddings
from shared.bundle import load_bundle
from shared.cost import CostModel
from shared.errors import InvalidInput
from shared.runtime.encoding import TextEncoder

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


def with_heads(run: Run, data: str | None, pools: Pools) -> Pools:
    """The pools with success heads for the policy ``value``; without, where too few examples."""
    split = run.split(data)
    if len(split.validation) < 20 * FOLDS:
        return pools
    validation = samples_of_run(run, split.validation, "validation")
    heads = priced_heads(exit0_of_run(run, split.train), validation, pools, SHIPPED)
    return replace(pools, heads=heads)


def export_run(run: Run, target: Path, data: str | None, **options: Any) -> str:
    """Export, measure as shipped on both splits, and write manifest and card with the figures.

    Raises `InvalidInput` where the shipped precision loses more than `MAX_LOSS` points at any exit
    of the reported split: such a bundle is not written.
    """
    pools = with_heads(run, data, pools_of_run(run, data, **options))
    max_tokens: int = options["max_tokens"]
    split = run.split(data)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "bundle"
        write_bundle(run, pools, trial, max_tokens, {})
        bundle = load_bundle(trial)
        accuracy: dict[str, Any] = {
            "candidates": [
                [round(option.alpha, 4), round(option.expected_reward, 5), *option.pool_sizes]
                for option in pools.candidates
            ],
            "split": run.facts["split"],
        }
        for name, examples in (("validation", split.validation), ("reported", split.test)):
            shipped = samples_of_bundle(bundle, examples)
            accuracy[name] = exit_table(samples_of_run(run, examples, name), shipped)
        accuracy["policies"] = policy_table(bundle, shipped)
    _check_loss(accuracy["reported"])
    write_bundle(run, pools, target, max_tokens, accuracy)
    return write_card(load_bundle(target), run.facts)


def _check_loss(table: dict[str, Any]) -> None:
    pairs = zip(table["fp32"]["accuracy"], table["shipped"]["accuracy"], strict=True)
    for layer, (full, shipped) in enumerate(pairs, start=1):
        if full - shipped > MAX_LOSS:
            raise InvalidInput(
                f"precision: exit {layer} loses {full - shipped:.2f} points as shipped, "
                f"more than {MAX_LOSS}; the bundle was not written"
            )
