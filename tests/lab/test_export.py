"""Export: layers equal the torch model at every split; from data to a bundle by command."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import TensorProto, helper

from lab.cli.train import export, pools, train
from lab.evaluate.samples import samples_of_bundle, samples_of_run
from lab.export import layers
from lab.export.bundle import export_run
from lab.export.layers import write_layers
from lab.export.onnx_layer import CONTRIB, Graph, quantise_columns
from lab.models.model import new_model
from lab.models.run import Run
from shared.bundle.loading import Bundle, load_bundle
from shared.domain import LayerRange
from shared.errors import InvalidInput
from shared.inference.layers import Layers
from tests.support.tiny_runs import fix_weights, write_fixed_run

OPTIONS = {"mobile_layers": 1, "edge_layers": 2, "mu": 0.1, "cloud_fee": None, "max_tokens": 64}


@pytest.mark.parametrize("head_hidden", [0, 5])
@pytest.mark.parametrize("pooling", ["mean", "cls", "both"])
def test_fp32_layers_equal_the_torch_model_at_every_split(
    pooling: str, head_hidden: int, tiny_encoder: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """The reference runs in fp64, so that only the rounding of the exported layers differs."""
    model = fix_weights(new_model(str(tiny_encoder), 2, pooling, head_hidden), 7).eval()
    write_layers(model, tmp_path, bits=None)
    exported = Bundle(tmp_path, bundle.manifest, "none")
    rng = np.random.default_rng(5)
    ids = torch.tensor(rng.integers(5, 20, (4, 12)))
    mask = torch.tensor([[1] * 12, [1] * 12, [1] * 5 + [0] * 7, [1] + [0] * 11])
    model.double()
    with torch.inference_mode():
        inputs = {"input_ids": ids, "attention_mask": mask}
        expected_EBC = model(inputs).numpy()
        hidden = model.encoder(**inputs, output_hidden_states=True).hidden_states[0].numpy()
    mask_BT = mask.numpy().astype(np.int32)
    parts = {layer: Layers(exported, LayerRange(layer, layer), threads=1) for layer in (1, 2, 3)}
    for rows in (slice(None), slice(0, 1), slice(2, 4)):
        hidden_BTH = hidden[rows].astype(np.float32)
        for layer, part in parts.items():
            hidden_BTH, logits_BC = part.run_layer(layer, hidden_BTH, mask_BT[rows])
            np.testing.assert_allclose(logits_BC, expected_EBC[layer - 1][rows], atol=1e-4)


def integer_product(weight_OI: NDArray[np.float32]) -> onnxruntime.InferenceSession:
    """Return a session of x · Wᵀ in integers."""
    graph = Graph(bits=8)
    graph.product("y", "x", weight_OI)
    value = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "product",
            [value("x", shape=["B", "T", weight_OI.shape[1]])],
            [value("y", shape=["B", "T", weight_OI.shape[0]])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)],
    )
    model.ir_version = 9
    return onnxruntime.InferenceSession(model.SerializeToString())


def test_integer_product_is_within_half_a_quantisation_step() -> None:
    """|error| ≤ Σ |x|·s_w/2 + |w|·s_x/2 + s_x·s_w/4: half a step of each factor, on any CPU."""
    rng = np.random.default_rng(11)
    weight_OI = rng.normal(0, 0.3, (48, 64)).astype(np.float32)
    x_BTI = rng.normal(0, 2, (3, 5, 64)).astype(np.float32)
    (found_BTO,) = integer_product(weight_OI).run(None, {"x": x_BTI})
    _, weight_step_O = quantise_columns(weight_OI)
    x_step_BT1 = np.abs(x_BTI).max(-1, keepdims=True) / 127
    bound_BTO = (
        np.abs(x_BTI).sum(-1, keepdims=True) * weight_step_O / 2
        + np.abs(weight_OI).sum(-1) * x_step_BT1 / 2
        + 64 * x_step_BT1 * weight_step_O / 4
    )
    error_BTO = np.abs(found_BTO - x_BTI.astype(np.float64) @ weight_OI.T)
    assert (error_BTO <= bound_BTO * 1.001).all()
    assert error_BTO.max() > 0, "an exact result is not quantised"


@pytest.fixture(scope="module")
def fixed_glue_run(
    tiny_data: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with fixed weights and the split ``glue``."""
    return write_fixed_run(
        tmp_path_factory.mktemp("fixed-glue"), tiny_data, tiny_encoder, split="glue"
    )


def test_bundle_in_fp32_has_the_samples_of_its_run(
    fixed_glue_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probabilities, embeddings, lengths and labels are those of the torch model."""
    monkeypatch.setattr(layers, "write_layers", partial(write_layers, bits=None))
    run = Run(fixed_glue_run)
    export_run(run, tmp_path / "bundle", None, **OPTIONS)
    examples = run.split().test[:50]
    direct = samples_of_run(run, examples, "some")
    exported = samples_of_bundle(load_bundle(tmp_path / "bundle"), examples)
    np.testing.assert_allclose(direct.probabilities_NEC, exported.probabilities_NEC, atol=1e-4)
    np.testing.assert_allclose(direct.embedding_NH, exported.embedding_NH, atol=1e-6)
    np.testing.assert_array_equal(direct.tokens_N, exported.tokens_N)
    np.testing.assert_array_equal(direct.labels_N, exported.labels_N)


def quantised(layer: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Round a linear layer's input to 8 bits with a scale for each row."""
    (x,) = args
    step = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
    return ((x / step).round() * step,)


def test_bundle_is_as_close_to_its_run_as_the_quantisation_allows(
    fixed_glue_run: Path, tmp_path: Path
) -> None:
    """The same rounding in torch gives the error to expect; the bundle has at most twice that."""
    run = Run(fixed_glue_run)
    export_run(run, tmp_path / "bundle", None, max_loss=100.0, **OPTIONS)
    examples = run.split().test[:50]
    direct = samples_of_run(run, examples, "some").probabilities_NEC
    exported = samples_of_bundle(load_bundle(tmp_path / "bundle"), examples).probabilities_NEC
    rounded_run = Run(fixed_glue_run)
    for module in rounded_run.model.encoder.encoder.modules():
        if isinstance(module, torch.nn.Linear):
            weight_IO, scale_O = quantise_columns(module.weight.detach().numpy())
            module.weight.data = torch.from_numpy((weight_IO * scale_O).T.astype(np.float32))
            module.register_forward_pre_hook(quantised)
    rounded = samples_of_run(rounded_run, examples, "rounded").probabilities_NEC
    expected_error, error = np.abs(rounded - direct), np.abs(exported - direct)
    assert 0 < error.max() <= 2 * expected_error.max()
    assert error.mean() <= 1.5 * expected_error.mean()


def test_from_data_to_bundle_by_command(
    tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    runner = CliRunner()
    options = [
        "--data", str(tiny_data), "--encoder", str(tiny_encoder), "--out", str(tmp_path / "run"),
        "--task", "sst2", "--split", "glue", "--epochs", "1", "--no-bf16",
    ]  # fmt: skip
    done = runner.invoke(train, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    layer_options = ["--mobile-layers", "1", "--edge-layers", "2"]
    listed = runner.invoke(pools, [str(tmp_path / "run"), *layer_options], catch_exceptions=False)
    assert listed.output.count("\n") >= 11
    assert "<- α" in listed.output
    for name in ("one", "two"):
        done = runner.invoke(
            export,
            # the loss depends on the CPU
            [str(tmp_path / "run"), str(tmp_path / name), *layer_options, "--max-loss", "100"],
            catch_exceptions=False,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
    one, two = load_bundle(tmp_path / "one"), load_bundle(tmp_path / "two")
    assert one.bundle_id == two.bundle_id, "the same run exports the same bytes"
    assert one.manifest.layers == 3
    assert (one.manifest.mobile_layers, one.manifest.edge_layers) == (1, 2)
    table = one.manifest.accuracy["reported"]
    card = (tmp_path / "one" / "README.md").read_text()
    assert f"| 3 | {table['fp32']['accuracy'][2]:.2f} |" in card
    assert "| `dimee-adaptive` |" in card


def test_bundle_is_replaced_also_after_an_interrupted_export(tmp_path: Path) -> None:
    """An export that ended between its renames leaves the older bundle beside the new one."""
    new, target, left = tmp_path / "new", tmp_path / "bundle", tmp_path / ".bundle.old"
    for folder in (new, target, left):
        folder.mkdir()
        (folder / "manifest.json").write_text(folder.name)
    layers.replace_bundle(new, target)
    assert (target / "manifest.json").read_text() == "new"
    assert sorted(tmp_path.iterdir()) == [target]


def test_export_prints_notes_on_few_examples(fixed_run: Path, tmp_path: Path) -> None:
    """40 validation rows are too few for heads, 40 reported rows too few for the check."""
    options = ["--mobile-layers", "1", "--edge-layers", "2", "--max-loss", "50"]
    done = CliRunner().invoke(
        export, [str(fixed_run), str(tmp_path / "bundle"), *options], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    policy, precision = done.stderr.splitlines()[-2:]
    assert policy.startswith("note: this bundle runs the policy dimee-fixed by default, because 40")
    assert precision.startswith("note: the bundle's precision was checked on 40 reported texts")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.default_policy == "dimee-fixed"
    assert bundle.manifest.accuracy["loss"]["max_loss"] == 50
    assert "--max-loss 50" in done.stdout


def test_export_refuses_a_bundle_that_loses_too_much(fixed_glue_run: Path, tmp_path: Path) -> None:
    """No bundle is written; every exit's interval lies above a loss of −101 points."""
    with pytest.raises(InvalidInput, match=r"exit \d loses .* the bundle was not written"):
        export_run(Run(fixed_glue_run), tmp_path / "bundle", None, max_loss=-101.0, **OPTIONS)
    assert not (tmp_path / "bundle").exists()


def test_cached_samples_are_used_for_equal_data_only(
    tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    run = Run(write_fixed_run(tmp_path, tiny_data, tiny_encoder))
    examples = run.split().validation
    first = samples_of_run(run, examples, "validation")
    files = set((tmp_path / "outputs").iterdir())
    again = samples_of_run(run, examples, "validation")
    np.testing.assert_array_equal(first.probabilities_NEC, again.probabilities_NEC)
    np.testing.assert_array_equal(first.embedding_NH, again.embedding_NH)
    assert (again.data_hash, again.model_hash) == (first.data_hash, first.model_hash)
    assert set((tmp_path / "outputs").iterdir()) == files
    samples_of_run(run, examples[:5], "validation")
    assert len(set((tmp_path / "outputs").iterdir())) == len(files) + 1


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(pools, [str(tmp_path)])
    assert "holds no trained model" in str(done.exception)
