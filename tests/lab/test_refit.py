"""Refitting a bundle for other prices with the same layers; serving a bundle for pairs."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lab.data.splits import load_split
from lab.data.tasks import get_task
from lab.evaluate.cascade_sweep import CascadeSweep
from lab.evaluate.groups import with_groups
from lab.evaluate.pools import make_pools
from lab.evaluate.samples import samples_of_bundle
from lab.export.bundle import export_run
from lab.export.refit import refit
from lab.models.run import Run
from mobile_client.local.runtime import LocalRuntime
from mobile_client.settings import MobileSettings
from shared.bundle.loading import load_bundle
from shared.domain import Tier
from shared.errors import InvalidInput
from shared.pricing.cost_model import CostModel
from tests.support.tiny_data import make_pair_rows, make_rows, write_rows
from tests.support.tiny_runs import write_fixed_run

OPTIONS = {"mobile_layers": 1, "edge_layers": 2, "mu": 0.1, "cloud_fee": None, "max_tokens": 64}


def exported(task: str, data: Path, encoder: Path, folder: Path) -> Path:
    """Export a run with fixed weights and return the bundle."""
    write_fixed_run(folder / "run", data, encoder, task, split="glue")
    # the loss by rounding depends on the CPU
    export_run(Run(folder / "run"), folder / "bundle", None, max_loss=100.0, **OPTIONS)
    return folder / "bundle"


@pytest.fixture(scope="module")
def made(tiny_data: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("sst2", tiny_data, tiny_encoder, tmp_path_factory.mktemp("refitted"))


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_refit_changes_the_router_and_no_layer(made: Path, tiny_data: Path, tmp_path: Path) -> None:
    before = hashes(made)
    (made / "certificate.json").write_text("{}")  # written by dimee calibrate
    result = refit(made, tmp_path / "deep" / "new", str(tiny_data), cloud_fee=3.0)
    (made / "certificate.json").unlink()
    assert hashes(made) == before
    old, new = load_bundle(made), load_bundle(tmp_path / "deep" / "new")
    assert new.cost_model == CostModel.paper(3, cloud_fee=3.0)
    assert "dimee refit BUNDLE NEW --data DATA" in result.card
    (note,) = result.notes
    assert note.startswith("this bundle runs the policy dimee-fixed by default")
    assert new.default_policy == "dimee-fixed"
    assert new.manifest.accuracy["loss"] == old.manifest.accuracy["loss"]
    assert not (new.path / "certificate.json").exists()
    for name, checksum in old.manifest.files.items():
        if name != "router.npz":
            assert new.manifest.files[name] == checksum
    split = load_split(str(tiny_data), get_task("sst2"), "glue", 13)
    validation = samples_of_bundle(new, split.validation)
    pools = make_pools(validation, new.cost_model, 1, 2, 0.1)
    assert (new.manifest.alpha, new.manifest.pool_sizes) == (pools.alpha, pools.sizes)
    np.testing.assert_array_equal(new.router()[0], pools.centroids_DH)
    assert set(new.manifest.accuracy["policies"]) >= {"dimee-fixed", "cloud"}


def test_same_refit_gives_the_same_bundle(made: Path, tiny_data: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        refit(made, tmp_path / name, str(tiny_data))
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")


def test_folder_that_is_no_bundle_is_not_replaced(
    made: Path, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="exists and is not a bundle"):
        refit(made, tmp_path, str(tiny_data))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_other_data_are_refused(made: Path, tiny_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, seed in (("train", 90), ("validation", 91)):
        write_rows(data / f"{name}.jsonl", make_rows(400, seed))
    with pytest.raises(InvalidInput, match=r"is not the data that .* was trained on"):
        refit(made, tmp_path / "new", str(data))
    (data / "train.jsonl").write_text((tiny_data / "train.jsonl").read_text())
    write_rows(data / "validation.jsonl", make_rows(50, 91))
    with pytest.raises(InvalidInput, match=r"the reported examples are not those of"):
        refit(made, tmp_path / "new", str(data))
    assert not (tmp_path / "new").exists()


def test_bundle_without_facts_of_its_training_is_refused(
    made: Path, tiny_data: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(made)
    silent = replace(bundle, manifest=bundle.manifest.model_copy(update={"training": {}}))
    copy = tmp_path / "silent"
    copy.mkdir()
    for name in bundle.manifest.files:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes((made / name).read_bytes())
    (copy / "manifest.json").write_text(silent.manifest.model_dump_json())
    with pytest.raises(InvalidInput, match="has no facts of its training"):
        refit(copy, tmp_path / "new", str(tiny_data))


def test_mobile_and_lab_route_pairs_alike(tiny_encoder: Path, tmp_path: Path) -> None:
    """The features of a pair are equal on the mobile and in the lab, and so is the tier."""
    data = tmp_path / "data"
    for name, count, seed in (("train", 1300, 1), ("validation", 60, 2)):
        write_rows(data / f"{name}.jsonl", make_pair_rows(count, seed))
    folder = exported("mrpc", data, tiny_encoder, tmp_path)
    bundle = load_bundle(folder)
    accuracy = bundle.manifest.accuracy
    assert bundle.manifest.metric == "f1"
    assert accuracy["policies"]["cloud"]["metric"] == accuracy["reported"]["shipped"]["metric"][-1]
    assert "| policy | accuracy (%) | F1 (%) |" in (folder / "README.md").read_text()
    heads = bundle.correctness_heads()
    assert heads is not None
    assert heads.reads_pairs
    split = load_split(str(data), get_task("mrpc"), "glue", 13)
    samples = with_groups(samples_of_bundle(bundle, split.test), split.test)
    pools = make_pools(samples, bundle.cost_model, 1, 2, 0.1, float(heads.alpha))
    swept = CascadeSweep(heads, samples, pools).first_tiers(
        float(heads.cost_weight), bundle.cost_model, "both"
    )
    runtime = LocalRuntime(MobileSettings(bundle=folder, latency_price_lambda=0.0))
    try:
        policy = runtime.make_policy("cascade-routing")
        for i, row in enumerate(split.test):
            read = runtime.prepare(row.text, row.pair)
            assert samples.pair_NP is not None
            np.testing.assert_array_equal(read.features.pair_P, samples.pair_NP[i])
            tier = runtime.route(read, policy, 5000.0).routing.tier
            assert tier is tuple(Tier)[int(swept[i])]
    finally:
        runtime.close()
