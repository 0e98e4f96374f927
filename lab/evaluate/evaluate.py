"""``dimee evaluate``: measure every method on the outputs of one run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.manifold import TSNE
from tqdm import tqdm

from lab.data.examples import check_classes, load_examples
from lab.data.tasks import facts_of_task
from lab.evaluate import sweeps
from lab.evaluate.baselines import pools_of
from lab.evaluate.cascade_study import cascade_study
from lab.evaluate.choose_lambda import TooFewExamples
from lab.evaluate.methods import (
    BASELINE_ROWS,
    PAPER_METHODS,
    TIER_ROWS,
    EvaluationData,
    Scorer,
    find_own_policies,
    traces,
)
from lab.evaluate.metrics import METRIC_NAMES
from lab.evaluate.pools import Pools, make_pools
from lab.evaluate.predictions import check_suffix, write_predictions
from lab.evaluate.samples import Samples
from lab.evaluate.source import OutputSource
from shared.files import prepare_output
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices
from shared.terminal import progress_stream

FORMAT = 2
MAP_SAMPLES = 600
SHIFT_DOMAINS = ("books", "dvd", "electronics")


def evaluate(
    source: OutputSource,
    on: str,
    mobile_layers: int,
    edge_layers: int,
    mu: float,
    cloud_fee: float | None,
    shift: Path | None = None,
    price_book: Path | None = None,
    policies: Sequence[str] = (),
    predictions: Path | None = None,
) -> dict[str, Any]:
    """Measure every method on one part of a run, or of a folder of exit outputs.

    α, pools and the routers are fitted on the run's validation part. ``on`` is the reported part:
    ``test``, the run's own, or ``glue``, GLUE's validation file. Prices are the preset's or those
    of ``price_book``; ``cloud_fee`` replaces γ. ``policies`` are policies of the user's own, as
    `make_policy` takes them. ``predictions`` is a file for every answer of every policy
    (`write_predictions`). Returns the content of the JSON.
    """
    if predictions is not None:
        check_suffix(predictions)
        prepare_output(predictions, "predictions")
    live_prices = LivePrices(CostModel.paper(source.layers), price_book)
    cost_model = live_prices.cost_model
    if cloud_fee is not None:
        cost_model = replace(cost_model, cloud_fee=cloud_fee)
    validation, test = source.validation(), source.reported(on)
    labels = {"validation": validation.labels_N.tolist(), "reported": test.labels_N.tolist()}
    check_classes(labels, source.task)
    pools = make_pools(validation, cost_model, mobile_layers, edge_layers, mu)
    own_policies = find_own_policies(policies, pools.facts)
    data = EvaluationData(source.task.metric, validation, test, pools, own_policies)
    result = _facts(source, on, data)
    if own_policies:
        result["own_policies"] = own_policies
    if price_book is not None:
        result["price_book"] = live_prices.book.version
    result |= _measure(data)
    try:
        result["cascade_routing"] = cascade_study(data, Scorer(data), source.embedding_classifier())
    except TooFewExamples as error:
        result["no_cascade_routing"] = error.reason
    if shift is not None:
        result["shift"] = _shift(source, data, shift)
    if predictions is not None:
        write_predictions(predictions, data, list(result["methods"]), source.task.labels)
    return result


def _facts(source: OutputSource, on: str, data: EvaluationData) -> dict[str, Any]:
    facts, pools, reported = source.facts, data.pools, len(data.test)
    names = ("task", "encoder", "split", "pooling", "loss", "epochs", "batch_size",
            "learning_rate", "max_tokens", "seed", "limit", "examples", "data_hash")  # fmt: skip
    return {
        "format": FORMAT,
        "run": {name: facts.get(name) for name in names}
        | {
            "loss": facts.get("loss", "sum"),
            "source": source.kind,
            "folder": source.folder.name,
        }
        | facts_of_task(source.task),
        "data": Path(facts.get("data", source.task.name)).name,
        "on": on,
        "layers": source.layers,
        "hidden_size": source.hidden_size,
        "metric": METRIC_NAMES[source.task.metric],
        "labels": list(source.task.labels),
        "reported": reported,
        "reported_hash": data.test.data_hash,
        "model_hash": data.test.model_hash,
        "majority": round(100 * float(np.bincount(data.test.labels_N).max()) / len(data.test), 4),
        "m": pools.mobile_layers,
        "n": pools.edge_layers,
        "mu": pools.mu,
        "alpha": round(pools.alpha, 6),
        "pools": pools.sizes,
        "empty_pools": pools.empty,
        "cost_model": {
            name: round(float(getattr(pools.cost_model, name)), 6)
            for name in ("mobile_layer", "edge_layer", "offload_edge", "offload_cloud", "cloud_fee")
        },
        "candidates": [
            [round(c.alpha, 6), round(c.expected_reward, 6), *c.pool_sizes]
            for c in pools.candidates
        ],
    }


def _measure(data: EvaluationData) -> dict[str, Any]:
    scorer = Scorer(data)
    steps = tqdm(total=8, desc="evaluate", unit="study", mininterval=1, file=progress_stream())

    def step(value: Any) -> Any:
        steps.update()
        return value

    names = (*PAPER_METHODS, *TIER_ROWS, *BASELINE_ROWS, *data.own_policies)
    test = data.test
    right_NE = test.answers_NE == test.labels_N[:, None]
    result = {
        "exits": {
            "accuracy": [round(100 * float(v), 4) for v in right_NE.mean(0)],
            "confidence": [round(float(v), 4) for v in test.confidence_NE.mean(0)],
            "largest_answer_share": [
                round(float(np.bincount(column).max() / len(test)), 4)
                for column in test.answers_NE.T
            ],
        },
        "methods": step({name: scorer.row(traces(name, data)) for name in names}),
        "by_cloud_fee": step(sweeps.by_cloud_fee(data)),
        "by_price": step(sweeps.by_price(data)),
        "by_alpha": step(sweeps.by_alpha(data, scorer)),
        "by_layers": step(sweeps.by_layers(data, scorer)),
        "drift": step(sweeps.drift(data)),
        "auroc": step(sweeps.router_auroc(data)),
        "map": step(_map(data.validation, data.pools)),
    }
    steps.close()
    return result


def _map(validation: Samples, pools: Pools) -> dict[str, Any]:
    """Return Figure 2c: t-SNE of the mean word embeddings of at most `MAP_SAMPLES` samples."""
    rows = np.random.default_rng(0).permutation(len(validation))[:MAP_SAMPLES]
    if len(rows) < 10:
        return {"points": [], "pools": []}
    perplexity = min(30.0, (len(rows) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
    points_N2 = tsne.fit_transform(validation.embedding_NH[rows].astype(np.float64))
    return {
        "points": [[round(float(x), 1), round(float(y), 1)] for x, y in points_N2],
        "pools": pools_of(validation, pools)[rows].tolist(),
    }


def _shift(source: OutputSource, data: EvaluationData, folder: Path) -> dict[str, Any]:
    """Return the adaptive rule under shift: the same pools, other domains."""
    result = {}
    for name in SHIFT_DOMAINS:
        examples = load_examples(str(folder / f"{name}.jsonl"), source.task, name)
        shifted = EvaluationData(
            data.metric,
            data.validation,
            source.samples_of(examples, name),
            data.pools,
            data.own_policies,
        )
        scorer = Scorer(shifted)
        names = ("dimee-fixed", "dimee-adaptive", "random-same-mix", *TIER_ROWS, *data.own_policies)
        result[name] = {
            "reported": len(examples),
            "methods": {row: scorer.row(traces(row, shifted)) for row in names},
            "drift": sweeps.drift(shifted),
        }
    return result


def name_of(result: dict[str, Any]) -> str:
    """Return the name of a result: ``TASK-ENCODER-SPLIT``, price book's version, own policies."""
    run = result["run"]
    encoder = Path(run["encoder"]).name
    name = f"{run['task']}-{encoder}-{result['on']}"
    if "price_book" in result:
        name += "-" + re.sub(r"[^\w.-]+", "-", result["price_book"])
    return "-".join([name, *result.get("own_policies", ())])


def write_result(result: dict[str, Any], folder: Path) -> Path:
    """Write ``result`` to `name_of`.json in ``folder`` and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name_of(result)}.json"
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)
    return file
