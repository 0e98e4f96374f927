"""The runtime ``cuda`` reads the layers of every encoder family and the exit heads of every shape.

It runs on torch's CPU path. The reference is onnxruntime on the same files in fp32, so that only
fp16's rounding differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.export.layers import sha256, write_embeddings, write_layers
from lab.models.encoders import load_encoder
from lab.models.exit_heads import ExitShape
from lab.models.model import MultiExitClassifier
from shared.bundle.loading import Bundle
from shared.bundle.manifest import EMBEDDINGS, layer_file
from shared.domain import LayerRange
from shared.errors import BundleError
from shared.inference.cuda.batch import DeviceBatch
from shared.inference.cuda.layers import CudaLayers
from shared.inference.devices import TORCH_CPU
from shared.inference.embeddings import Embeddings
from shared.inference.layers import Layers
from shared.inference.tokenizer import TextEncoder
from tests.support.tiny_encoders import CONFIGS, randomise, write_encoder

TOKENS, LAYERS, HIDDEN = 64, 3, 32
CLOSE = 0.05
"""Largest difference in states and logits of up to ten."""
TEXTS = ["a", "a warm day and a very lovely night", "fine " * 100]
SHAPES = [ExitShape("cls", 8, "tanh"), ExitShape("both", 8, "relu"), ExitShape("mean", 8, "gelu")]
CASES: dict[str, tuple[str, dict[str, Any], list[ExitShape] | None]] = {
    **{kind: (kind, {}, None) for kind in CONFIGS},
    "relu, hidden layers in the heads": ("bert", {"hidden_act": "relu"}, SHAPES),
    "gelu by tanh, first token": ("bert", {"hidden_act": "gelu_new"}, [ExitShape("cls")] * LAYERS),
}


def exported(folder: Path, bundle: Bundle, case: str) -> tuple[Bundle, TextEncoder]:
    """Write the layers of a tiny encoder in fp32, and return them as a bundle."""
    kind, settings, shapes = CASES[case]
    encoder = write_encoder(kind, folder / "encoder", TOKENS, **settings)
    model = MultiExitClassifier(load_encoder(str(encoder)), 2, shapes=shapes)
    randomise(model, 7).eval()
    write_layers(model, folder, bits=None)
    write_embeddings(model, folder / EMBEDDINGS)
    names = [layer_file(layer) for layer in range(1, LAYERS + 1)]
    manifest = bundle.manifest.model_copy(
        update={
            "hidden_size": HIDDEN,
            "layers": LAYERS,
            "max_tokens": TOKENS,
            "files": {name: sha256(folder / name) for name in names},
        }
    )
    return Bundle(folder, manifest, "none"), TextEncoder(encoder / "tokenizer.json", TOKENS)


@pytest.mark.parametrize("case", CASES)
def test_states_and_logits_are_those_of_onnxruntime(
    case: str, bundle: Bundle, tmp_path: Path
) -> None:
    tiny, encoder = exported(tmp_path, bundle, case)
    rows = [encoder.encode(text) for text in TEXTS]
    hidden_BTH, mask_BT = Embeddings(tmp_path / EMBEDDINGS).first_hidden(rows)
    onnx = Layers(tiny, LayerRange(1, LAYERS), threads=1)
    batch = DeviceBatch(tiny, TORCH_CPU)
    batch.load(rows)
    for layer in range(1, LAYERS + 1):
        batch.add_layer(layer)
        batch.run_layer(layer)
        hidden_BTH, logits_BC = onnx.run_layer(layer, hidden_BTH, mask_BT)
        np.testing.assert_allclose(batch.logits()[: len(rows)], logits_BC, atol=CLOSE)
        for i, row in enumerate(rows):
            ours, theirs = batch.hidden()[i, : row.tokens], hidden_BTH[i, : row.tokens]
            np.testing.assert_allclose(ours, theirs, atol=CLOSE)


def test_layer_that_the_reader_misunderstands_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    tiny, _ = exported(tmp_path, bundle, "bert")
    layers = CudaLayers(tiny, LayerRange(1, LAYERS), TORCH_CPU, threads=1)
    layers.check()
    wrong, _ = exported(tmp_path / "other", bundle, "relu, hidden layers in the heads")
    layers.batch._layers[2] = CudaLayers(wrong, LayerRange(2, 2), TORCH_CPU, 1).batch._layers[2]
    with pytest.raises(BundleError, match=r"02\.onnx cannot be run .*differs by \d+% from onnx"):
        layers.check()


def test_file_that_is_no_layer_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    tiny, _ = exported(tmp_path, bundle, "bert")
    name = layer_file(2)
    (tmp_path / name).write_bytes(b"no layer")
    with pytest.raises(BundleError, match="is damaged"):
        CudaLayers(tiny, LayerRange(1, LAYERS), TORCH_CPU, threads=1)
    tiny.manifest.files[name] = sha256(tmp_path / name)
    with pytest.raises(BundleError, match="cannot be read by the cuda runtime"):
        CudaLayers(tiny, LayerRange(1, LAYERS), TORCH_CPU, threads=1)
