"""``dimee evaluate``: every method over the outputs of one run, as one JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.manifold import TSNE
from tqdm import tqdm

from lab.data.examples import check_classes, load_examples
from lab.evaluate import sweeps
from lab.evaluate.baselines import pools_of
from lab.evaluate.cascade_study import cascade_study
from lab.evaluate.choose_lambda import FOLDS
from lab.evaluate.methods import PAPER_METHODS, RIVAL_ROWS, TIER_ROWS, Judged, Scorer, traces
from lab.evaluate.metrics import METRIC_NAMES
from lab.evaluate.pools import Pools, make_pools
from lab.evaluate.samples import Samples
from lab.evaluate.source import Source
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices

FORMAT = 2
SHOWN = 600
SHIFTED = ("books", "dvd", "electronics")


def evaluate(
    source: Source,
    on: str,
    mobile_layers: int,
    edge_layers: int,
    mu: float,
    cloud_fee: float | None,
    shift: Path | None = None,
    price_book: Path | None = None,
) -> dict[str, Any]:
    """Judge every method on one part of a run, or of a folder of exit outputs.

    α, pools and whatever a router learns come from the run's validation part; ``on`` names what
    is reported: ``test``, the run's own, or ``glue``, GLUE's validation file. Prices are the
    preset's, or those of ``price_book``; ``cloud_fee`` replaces γ of either.
    """
    tariff = LivePrices(CostModel.paper(source.layers), price_book)
    cost_model = tariff.cost_model
    if cloud_fee is not None:
        cost_model = replace(cost_model, cloud_fee=cloud_fee)
    validation, test = source.validation(), source.reported(on)
    labels = {"validation": validation.labels_N.tolist(), "reported": test.labels_N.tolist()}
    check_classes(labels, source.task)
    pools = make_pools(validation, cost_model, mobile_layers, edge_layers, mu)
    judged = Judged(source.task.name, validation, test, pools)
    result = _facts(source, on, judged)
    if price_book is not None:
        result["price_book"] = tariff.book.version
    result |= _judge(judged)
    if len(validation) >= 20 * FOLDS:
        result["cascade_routing"] = cascade_study(judged, Scorer(judged), source.exit0())
    if shift is not None:
        result["shift"] = _shift(source, judged, shift)
    return result


def _facts(source: Source, on: str, judged: Judged) -> dict[str, Any]:
    facts, pools, reported = source.facts, judged.pools, len(judged.test)
    kept = ("task", "encoder", "split", "pooling", "loss", "epochs", "batch_size",
            "learning_rate", "max_tokens", "seed", "limit", "examples", "data_hash")  # fmt: skip
    return {
        "format": FORMAT,
        "run": {name: facts.get(name) for name in kept}
        | {
            "loss": facts.get("loss", "sum"),
            "source": source.source,
            "folder": source.folder.name,
        },
        "data": Path(facts.get("data", source.task.name)).name,
        "on": on,
        "layers": source.layers,
        "hidden_size": source.hidden_size,
        "metric": METRIC_NAMES.get(source.task.name, "accuracy"),
        "labels": list(source.task.labels),
        "reported": reported,
        "reported_hash": judged.test.data_hash,
        "model_hash": judged.test.model_hash,
        "majority": round(
            100 * float(np.bincount(judged.test.labels_N).max()) / len(judged.test), 4
        ),
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


def _judge(judged: Judged) -> dict[str, Any]:
    scorer = Scorer(judged)
    steps = tqdm(total=8, desc="evaluate", unit="study", mininterval=1)

    def step(value: Any) -> Any:
        steps.update()
        return value

    names = (*PAPER_METHODS, *TIER_ROWS, *RIVAL_ROWS)
    test = judged.test
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
        "methods": step({name: scorer.row(traces(name, judged)) for name in names}),
        "by_cloud_fee": step(sweeps.by_cloud_fee(judged)),
        "by_price": step(sweeps.by_price(judged)),
        "by_alpha": step(sweeps.by_alpha(judged, scorer)),
        "by_layers": step(sweeps.by_layers(judged, scorer)),
        "drift": step(sweeps.drift(judged)),
        "auroc": step(sweeps.router_auroc(judged)),
        "map": step(_map(judged.validation, judged.pools)),
    }
    steps.close()
    return result


def _map(validation: Samples, pools: Pools) -> dict[str, Any]:
    """Figure 2c: t-SNE of the mean word embeddings of the three pools, at most 600 samples."""
    rows = np.random.default_rng(0).permutation(len(validation))[:SHOWN]
    if len(rows) < 10:
        return {"points": [], "pools": []}
    perplexity = min(30.0, (len(rows) - 1) / 3)
    made = TSNE(perplexity=perplexity, init="pca", random_state=0)
    points_N2 = made.fit_transform(validation.embedding_NH[rows].astype(np.float64))
    return {
        "points": [[round(float(x), 1), round(float(y), 1)] for x, y in points_N2],
        "pools": pools_of(validation, pools)[rows].tolist(),
    }


def _shift(source: Source, judged: Judged, folder: Path) -> dict[str, Any]:
    """The adaptive rule under real shift: the same pools, other domains."""
    result = {}
    for name in SHIFTED:
        examples = load_examples(str(folder / f"{name}.jsonl"), source.task, name)
        moved = Judged(
            judged.task, judged.validation, source.samples_of(examples, name), judged.pools
        )
        scorer = Scorer(moved)
        names = ("dimee-fixed", "dimee-adaptive", "random-same-mix", *TIER_ROWS)
        result[name] = {
            "reported": len(examples),
            "methods": {row: scorer.row(traces(row, moved)) for row in names},
            "drift": sweeps.drift(moved),
        }
    return result


def name_of(result: dict[str, Any]) -> str:
    """``TASK-ENCODER-SPLIT``, and the price book's version: the name of a result's file."""
    run = result["run"]
    encoder = Path(run["encoder"]).name
    name = f"{run['task']}-{encoder}-{result['on']}"
    if "price_book" in result:
        name += "-" + re.sub(r"[^\w.-]+", "-", result["price_book"])
    return name


def write_result(result: dict[str, Any], folder: Path) -> Path:
    """Write ``result`` as ``TASK-ENCODER-SPLIT.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name_of(result)}.json"
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)
    return file
