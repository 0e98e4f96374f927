"""Export: fp32 layers equal the torch model at every split; from data to bundle by command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lab.cli.train import export, pools, train
from lab.evaluate.samples import samples_of_bundle, samples_of_run
from lab.export.layers import write_layers
from lab.models.model import new_model
from lab.models.run import Run
from shared.bundle.loading import Bundle, load_bundle
from shared.domain import LayerRange
from shared.errors import InvalidInput
from shared.inference.layers import Layers


@pytest.fixture(scope="module")
def run_folder(
    tiny_data: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("run")
    done = CliRunner().invoke(
        train,
        [
            "--data",
            str(tiny_data),
            "--encoder",
            str(tiny_encoder),
            "--out",
            str(folder),
            "--split",
            "glue",
            "--epochs",
            "12",
            "--learning-rate",
            "0.003",
            "--no-bf16",
        ],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize("head_hidden", [0, 5])
@pytest.mark.parametrize("pooling", ["mean", "cls", "both"])
def test_every_split_equals_the_torch_model(
    pooling: str, head_hidden: int, tiny_encoder: Path, bundle: Bundle, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    model = new_model(str(tiny_encoder), 2, pooling, head_hidden).eval()
    write_layers(model, tmp_path, bits=None)
    exported = Bundle(tmp_path, bundle.manifest, "none")
    rng = np.random.default_rng(5)
    ids = torch.tensor(rng.integers(5, 20, (4, 12)))
    mask = torch.tensor([[1] * 12, [1] * 12, [1] * 5 + [0] * 7, [1] + [0] * 11])
    with torch.inference_mode():
        inputs = {"input_ids": ids, "attention_mask": mask}
        expected_EBC = model(inputs).numpy()
        hidden = model.encoder(**inputs, output_hidden_states=True).hidden_states[0].numpy()
    mask_BT = mask.numpy().astype(np.int32)
    parts = {layer: Layers(exported, LayerRange(layer, layer), threads=1) for layer in (1, 2, 3)}
    for rows in (slice(None), slice(0, 1), slice(2, 4)):
        hidden_BTH = hidden[rows]
        for layer, part in parts.items():
            hidden_BTH, logits_BC = part.run_layer(layer, hidden_BTH, mask_BT[rows])
            np.testing.assert_allclose(logits_BC, expected_EBC[layer - 1][rows], atol=1e-4)


def test_from_data_to_bundle(run_folder: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    options = ["--mobile-layers", "1", "--edge-layers", "2"]
    listed = runner.invoke(pools, [str(run_folder), *options], catch_exceptions=False)
    assert listed.output.count("\n") >= 11
    assert "<- α" in listed.output
    for name in ("one", "two"):
        done = runner.invoke(
            export, [str(run_folder), str(tmp_path / name), *options], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
    one, two = load_bundle(tmp_path / "one"), load_bundle(tmp_path / "two")
    assert one.bundle_id == two.bundle_id, "the same run exports the same bytes"
    assert one.manifest.layers == 3
    assert (one.manifest.mobile_layers, one.manifest.edge_layers) == (1, 2)
    table = one.manifest.accuracy["reported"]
    assert table["fp32"]["accuracy"][-1] > 70, "the tiny model must learn its toy task"
    card = (tmp_path / "one" / "README.md").read_text()
    assert f"| 3 | {table['fp32']['accuracy'][2]:.2f} |" in card
    assert "| `dimee-adaptive` |" in card


def test_cached_samples_are_used_for_equal_data_only(run_folder: Path) -> None:
    run = Run(run_folder)
    examples = run.split().validation
    first = samples_of_run(run, examples, "validation")
    files = set((run_folder / "outputs").iterdir())
    again = samples_of_run(run, examples, "validation")
    np.testing.assert_array_equal(first.probabilities_NEC, again.probabilities_NEC)
    np.testing.assert_array_equal(first.embedding_NH, again.embedding_NH)
    assert (again.data_hash, again.model_hash) == (first.data_hash, first.model_hash)
    assert set((run_folder / "outputs").iterdir()) == files
    samples_of_run(run, examples[:5], "validation")
    assert len(set((run_folder / "outputs").iterdir())) == len(files) + 1


def test_samples_of_the_bundle_are_those_of_the_run(run_folder: Path, tmp_path: Path) -> None:
    """As shipped and in torch: close probabilities, the same embeddings, lengths and labels."""
    options = ["--mobile-layers", "1", "--edge-layers", "2"]
    CliRunner().invoke(
        export, [str(run_folder), str(tmp_path / "b"), *options], catch_exceptions=False
    )
    run = Run(run_folder)
    examples = run.split().test[:50]
    torch_side = samples_of_run(run, examples, "some")
    shipped = samples_of_bundle(load_bundle(tmp_path / "b"), examples)
    np.testing.assert_allclose(torch_side.probabilities_NEC, shipped.probabilities_NEC, atol=0.1)
    np.testing.assert_allclose(torch_side.embedding_NH, shipped.embedding_NH, atol=1e-6)
    np.testing.assert_array_equal(torch_side.tokens_N, shipped.tokens_N)
    np.testing.assert_array_equal(torch_side.labels_N, shipped.labels_N)


def test_an_encoder_that_is_no_bert_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    model = new_model(str(tiny_encoder), 2, "mean")
    model.encoder.config.hidden_act = "relu"
    with pytest.raises(InvalidInput, match="bert with relu cannot be exported"):
        write_layers(model, tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(pools, [str(tmp_path)])
    assert "holds no trained model" in str(done.exception)
