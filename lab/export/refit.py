"""Refit a bundle for other prices: α, pools, heads and Λ; the layers stay unchanged."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lab.data.examples import data_hash
from lab.data.splits import Split, load_split
from lab.data.tasks import task_of_bundle
from lab.evaluate.bundle_report import policy_table
from lab.evaluate.fit_heads import fit_embedding_classifier
from lab.evaluate.groups import with_groups
from lab.evaluate.pools import make_pools
from lab.evaluate.samples import Samples, samples_of_bundle
from lab.export.bundle import Exported, accuracy_of, with_heads
from lab.export.card import write_card
from lab.export.layers import prices_of, save_manifest, sha256, write_router
from shared.bundle.correctness_heads import Floats
from shared.bundle.folders import check_target, replace_bundle
from shared.bundle.loading import Bundle, load_bundle
from shared.bundle.manifest import EMBEDDINGS, ROUTER, TOKENIZER
from shared.errors import InvalidInput
from shared.inference.embeddings import Embeddings
from shared.inference.tokenizer import TextEncoder
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices


def refit(
    source: Path,
    target: Path,
    data: str,
    mobile_layers: int | None = None,
    edge_layers: int | None = None,
    mu: float | None = None,
    cloud_fee: float | None = None,
    price_book: Path | None = None,
) -> Exported:
    """Refit α, pools, centroids, heads and Λ of the bundle ``source`` and write ``target``.

    ``data`` must be the data of the training. m, n and μ are the bundle's unless given; prices are
    those of ``price_book``, or the preset's. Raises `InvalidInput` for other data, and for a bundle
    without facts of its training.
    """
    bundle = load_bundle(source)
    manifest = bundle.manifest
    check_target(target)
    split = _split(bundle, data)
    prices = LivePrices(CostModel.paper(manifest.layers, cloud_fee), price_book).cost_model
    validation, reported = (
        samples_of_bundle(bundle, part) for part in (split.validation, split.test)
    )
    _check_reported(bundle, reported)
    pools = make_pools(
        validation,
        prices,
        manifest.mobile_layers if mobile_layers is None else mobile_layers,
        manifest.edge_layers if edge_layers is None else edge_layers,
        manifest.mu if mu is None else mu,
    )
    validation = with_groups(validation, split.validation)
    pools, chosen, note = with_heads(_embedding_classifier(bundle, split), validation, pools)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".refit-") as temporary:
        folder = Path(temporary) / "bundle"
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, folder / name)
        write_router(pools, folder / ROUTER)
        accuracy: dict[str, Any] = accuracy_of(pools, chosen, manifest.accuracy["split"])
        accuracy |= {
            name: manifest.accuracy[name]
            for name in ("validation", "reported", "loss")
            if name in manifest.accuracy
        }
        refitted = manifest.model_copy(
            update={
                "mobile_layers": pools.mobile_layers,
                "edge_layers": pools.edge_layers,
                "alpha": pools.alpha,
                "pool_sizes": pools.sizes,
                "cost_model": prices_of(prices),
                "mu": pools.mu,
                "accuracy": accuracy,
                "training": manifest.training | {"refitted": True},
                "files": manifest.files | {ROUTER: sha256(folder / ROUTER)},
            }
        )
        save_manifest(refitted, folder)
        accuracy["policies"] = policy_table(load_bundle(folder), reported)
        save_manifest(refitted, folder)
        card = write_card(load_bundle(folder))
        replace_bundle(folder, target)
    return Exported(card, [note] if note else [])


def _split(bundle: Bundle, data: str) -> Split:
    manifest = bundle.manifest
    facts = manifest.training
    if not facts:
        raise InvalidInput(
            f"bundle: {bundle.path} has no facts of its training; export it again from its run"
        )
    task = task_of_bundle(manifest, bundle.path)
    split = load_split(data, task, manifest.accuracy["split"], manifest.seed, facts.get("limit"))
    if data_hash(split.train + split.validation) != manifest.data_hash:
        raise InvalidInput(
            f"data: {data} is not the data that {bundle.path} was trained on; give the same data"
        )
    return split


def _check_reported(bundle: Bundle, reported: Samples) -> None:
    """Raise `InvalidInput` unless these are the examples of the manifest's accuracy by exit.

    Up to one point of difference is allowed, because another CPU may round a few examples
    differently.
    """
    expected = bundle.manifest.accuracy["reported"]
    right = 100 * float(np.mean(reported.answers_NE[:, -1] == reported.labels_N))
    if (
        expected["examples"] != len(reported)
        or abs(right - expected["shipped"]["accuracy"][-1]) > 1.0
    ):
        raise InvalidInput(
            f"data: the reported examples are not those of {bundle.path}; give the same data"
        )


def _embedding_classifier(bundle: Bundle, split: Split) -> tuple[Floats, Floats]:
    """Fit the embedding classifier on the training part with the bundle's word table."""
    encoder = TextEncoder(bundle.path / TOKENIZER, bundle.manifest.max_tokens)
    table = Embeddings(bundle.path / EMBEDDINGS)
    rows = [encoder.encode(row.text, row.pair) for row in split.train]
    embedding_NH = np.stack([table.mean_word_embedding(row) for row in rows])
    return fit_embedding_classifier(embedding_NH, np.array([row.label for row in split.train]))
