"""A bundle's router anew: α, pools, heads and Λ under other prices, its layers unchanged."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lab.data.examples import Split, data_hash, load_split
from lab.data.tasks import get_task
from lab.evaluate.bundle_report import policy_table
from lab.evaluate.fit_heads import fit_exit0
from lab.evaluate.groups import with_groups
from lab.evaluate.pools import make_pools
from lab.evaluate.samples import Samples, samples_of_bundle
from lab.export.bundle import accuracy_of, with_heads
from lab.export.card import write_card
from lab.export.layers import (
    check_target,
    prices_of,
    put_in_place,
    save_manifest,
    sha256,
    write_router,
)
from shared.bundle.correctness_heads import Floats
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
) -> str:
    """Fit α, pools, centroids, heads and Λ of ``source`` again, as shipped, and write ``target``.

    ``data`` is what the layers were trained on. m, n and μ are the bundle's unless given; prices
    are those of ``price_book``, else the preset's. Returns the card. Raises `InvalidInput` where
    the data are others, or the bundle does not say how it was trained.
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
    pools, kept = with_heads(_exit0(bundle, split), validation, pools)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".refit-") as made:
        folder = Path(made) / "bundle"
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, folder / name)
        write_router(pools, folder / ROUTER)
        accuracy: dict[str, Any] = accuracy_of(pools, kept, manifest.accuracy["split"])
        accuracy |= {name: manifest.accuracy[name] for name in ("validation", "reported")}
        fresh = manifest.model_copy(
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
        save_manifest(fresh, folder)
        accuracy["policies"] = policy_table(load_bundle(folder), reported)
        save_manifest(fresh, folder)
        card = write_card(load_bundle(folder))
        put_in_place(folder, target)
    return card


def _split(bundle: Bundle, data: str) -> Split:
    manifest = bundle.manifest
    facts = manifest.training
    if not facts:
        raise InvalidInput(
            f"bundle: {bundle.path} does not say how it was trained; export it again from its run"
        )
    task = get_task(manifest.task)
    split = load_split(data, task, manifest.accuracy["split"], manifest.seed, facts.get("limit"))
    if data_hash(split.train + split.validation) != manifest.data_hash:
        raise InvalidInput(
            f"data: {data} is not what {bundle.path} was trained on; give the same data"
        )
    return split


def _check_reported(bundle: Bundle, reported: Samples) -> None:
    """The manifest keeps the exits' accuracy on the reported examples, so they must be the same.

    Another CPU may round a few examples to the other side.
    """
    known = bundle.manifest.accuracy["reported"]
    right = 100 * float(np.mean(reported.answers_NE[:, -1] == reported.labels_N))
    if known["examples"] != len(reported) or abs(right - known["shipped"]["accuracy"][-1]) > 1.0:
        raise InvalidInput(
            f"data: the reported examples are not those that {bundle.path} was measured on; "
            "give the same data"
        )


def _exit0(bundle: Bundle, split: Split) -> tuple[Floats, Floats]:
    """The embedding classifier of the bundle's own table, fitted on the training part."""
    encoder = TextEncoder(bundle.path / TOKENIZER, bundle.manifest.max_tokens)
    table = Embeddings(bundle.path / EMBEDDINGS)
    rows = [encoder.encode(row.text, row.pair) for row in split.train]
    embedding_NH = np.stack([table.mean_word_embedding(row) for row in rows])
    return fit_exit0(embedding_NH, np.array([row.label for row in split.train]))
