"""Exit heads of different shapes: saved and loaded, exported, read back, in older runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

from lab.export.layers import write_layers
from lab.export.peer_models import read_exits
from lab.models.exit_heads import ExitShape
from lab.models.model import MultiExitClassifier, load_model, new_model, save_model
from shared.bundle.loading import Bundle
from shared.domain import LayerRange
from shared.errors import InvalidInput
from shared.inference.layers import Layers
from tests.support.tiny_runs import fix_weights

MIXED = (
    ExitShape("mean"),
    ExitShape("both", 6, "relu"),
    ExitShape("cls", 64, "gelu"),
)


def mixed_model(encoder: Path, shapes: tuple[ExitShape, ...] = MIXED) -> MultiExitClassifier:
    """Return a model of three layers whose exits have different shapes and fixed weights."""
    model = MultiExitClassifier(AutoModel.from_pretrained(encoder), 3, shapes=shapes)
    with torch.no_grad():
        for head in model.exit_heads:
            for weight in head.parameters():
                weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
    return fix_weights(model, 7).eval()


def inputs_of(tokens: int = 9) -> dict[str, torch.Tensor]:
    """Return three texts of words that the tiny encoder has; two of them are padded."""
    ids_BT = torch.randint(5, 20, (3, tokens), generator=torch.Generator().manual_seed(4))
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, 5:] = mask_BT[2, 2:] = 0
    return {"input_ids": ids_BT, "attention_mask": mask_BT}


def test_each_exit_pools_and_activates_as_its_shape_says(tiny_encoder: Path) -> None:
    model = mixed_model(tiny_encoder).double()
    inputs = inputs_of()
    with torch.inference_mode():
        logits_EBC = model(inputs)
        hidden = model.encoder(**inputs, output_hidden_states=True).hidden_states[1:]
        first = [layer[:, 0] for layer in hidden]
        lengths = inputs["attention_mask"].sum(1).tolist()
        mean = [
            torch.stack([row[:length].mean(0) for row, length in zip(layer, lengths, strict=True)])
            for layer in hidden
        ]
        one, (hidden_two, _, two), (hidden_three, _, three) = model.exit_heads
        expected = [
            one(mean[0]),
            two(hidden_two(torch.cat([first[1], mean[1]], -1)).clamp(min=0)),
            three(nn.functional.gelu(hidden_three(first[2]))),
        ]
    torch.testing.assert_close(logits_EBC, torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_saved_model_has_the_shapes_and_answers_when_it_is_loaded(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    shapes = (MIXED[0], MIXED[1], ExitShape("cls", 5, "tanh"))
    model = MultiExitClassifier(AutoModel.from_pretrained(tiny_encoder), 2, shapes=shapes).eval()
    save_model(model, tmp_path, {"task": "sst2"})
    loaded, facts = load_model(tmp_path)
    assert loaded.shapes == shapes
    assert facts["exits"][1] == {"pooling": "both", "hidden": 6, "activation": "relu"}
    with torch.inference_mode():
        torch.testing.assert_close(loaded(inputs_of()), model(inputs_of()), rtol=0, atol=0)


@pytest.mark.parametrize(("pooling", "head_hidden"), [(None, 0), ("mean", 0), ("both", 5)])
def test_run_of_an_older_version_is_loaded_unchanged(
    pooling: str | None, head_hidden: int, tiny_encoder: Path, tmp_path: Path
) -> None:
    """It has one pooling for all exits (``cls`` if it is not recorded), and no ``exits``."""
    facts: dict[str, Any] = {"task": "sst2"} | ({"pooling": pooling} if pooling else {})
    facts |= {"head_hidden": head_hidden} if head_hidden else {}
    model = new_model(str(tiny_encoder), 2, pooling or "cls", head_hidden).eval()
    save_model(model, tmp_path, facts)
    (tmp_path / "dimee.json").write_text(json.dumps(facts))
    names = ["0.weight", "0.bias", "2.weight", "2.bias"] if head_hidden else ["weight", "bias"]
    heads = {f"exit_heads.{layer}.{name}" for layer in range(3) for name in names}
    weights = load_file(tmp_path / "weights.safetensors")
    assert {name for name in weights if name.startswith("exit_heads")} == heads
    save_file(weights, tmp_path / "weights.safetensors")
    loaded, _ = load_model(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(inputs_of()), model(inputs_of()), rtol=0, atol=0)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_exported_exits_equal_torch_and_are_read_back(
    activation: str, tiny_encoder: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """The reference runs in fp64, so that only the rounding of the exported layers differs."""
    shapes = (MIXED[0], MIXED[1], ExitShape("cls", 64, activation))
    model = mixed_model(tiny_encoder, shapes)
    write_layers(model, tmp_path, bits=None)
    manifest = bundle.manifest.model_copy(update={"layers": 3})
    exported = Bundle(tmp_path, manifest, "none")
    read = read_exits(exported)
    assert tuple(shape for shape, _ in read) == shapes
    for (_, weights), head in zip(read, model.exit_heads, strict=True):
        for name, values in head.state_dict().items():
            assert torch.equal(weights[name], values)
    inputs = inputs_of()
    model.double()
    with torch.inference_mode():
        expected_EBC = model(inputs).numpy()
        hidden_BTH = model.encoder(**inputs, output_hidden_states=True).hidden_states[0]
    hidden_BTH = hidden_BTH.numpy().astype(np.float32)
    mask_BT = inputs["attention_mask"].numpy().astype(np.int32)
    parts = Layers(exported, LayerRange(1, 3), threads=1)
    for layer in (1, 2, 3):
        hidden_BTH, logits_BC = parts.run_layer(layer, hidden_BTH, mask_BT)
        np.testing.assert_allclose(logits_BC, expected_EBC[layer - 1], atol=1e-4)


def test_unknown_shapes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="pooling: 'max' is not known; choose mean, cls or both"):
        ExitShape("max")
    with pytest.raises(InvalidInput, match="activation: 'silu' is not known; choose tanh"):
        ExitShape("cls", 4, "silu")
