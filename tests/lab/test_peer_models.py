"""Models for other inference servers have the weights of the bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.export.layers import write_embeddings, write_layers
from lab.export.peer_models import read_encoder, write_fp32_bundle, write_models
from lab.models.model import new_model
from shared.bundle.loading import Bundle, load_bundle
from shared.bundle.manifest import EMBEDDINGS
from shared.domain import LayerRange
from shared.errors import InvalidInput
from shared.inference.classifier import Classifier
from tests.support.tiny_encoders import write_encoder

TEXTS = ["a gripping, funny film", "dull and far too long", "it is not without charm"]


def test_fp32_bundle_answers_like_the_shipped_one(bundle: Bundle, tmp_path: Path) -> None:
    write_fp32_bundle(bundle, tmp_path / "fp32")
    layers = LayerRange(1, bundle.manifest.layers)
    shipped, fp32 = (Classifier(one, layers) for one in (bundle, load_bundle(tmp_path / "fp32")))
    rows = [shipped.encoder.encode(text) for text in TEXTS]
    for ours, theirs in zip(shipped.classify(rows, None), fp32.classify(rows, None), strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=0.05)
        assert ours.label_index == theirs.label_index


def test_transformers_encoder_gives_the_hidden_states_of_the_bundle(bundle: Bundle) -> None:
    encoder = read_encoder(bundle)
    classifier = Classifier(bundle, LayerRange(1, bundle.manifest.layers))
    row = classifier.encoder.encode(TEXTS[0])
    hidden_BTH, mask_BT = classifier.embeddings.first_hidden([row])
    for layer in range(1, bundle.manifest.layers + 1):
        hidden_BTH, _ = classifier.layers.run_layer(layer, hidden_BTH, mask_BT)
    with torch.inference_mode():
        theirs = encoder(input_ids=torch.tensor(row.ids_T)[None]).last_hidden_state[0].numpy()
    ours = hidden_BTH[0]
    cosine_T = (ours * theirs).sum(1) / (
        np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    )
    assert cosine_T.min() > 0.99


def test_models_that_are_there_are_not_written_again(bundle: Bundle, tmp_path: Path) -> None:
    names = ("fp32", "transformers", "onnx", "onnx-int8", "fused-fp32.onnx", "fused-shipped.onnx")
    for name in names[:-1]:
        (tmp_path / name).mkdir()
    written: list[str] = []
    write_models(bundle, tmp_path, written.append)
    assert len(written) == 1
    assert (tmp_path / names[-1]).is_file()


@pytest.mark.parametrize("kind", ["distilbert", "mpnet", "electra", "roberta"])
def test_bundle_of_another_family_is_refused(kind: str, bundle: Bundle, tmp_path: Path) -> None:
    encoder = write_encoder(kind, tmp_path / "encoder")
    model = new_model(str(encoder), 2, "mean")
    write_layers(model, tmp_path)
    write_embeddings(model, tmp_path / EMBEDDINGS)
    with pytest.raises(InvalidInput, match=r"another kind than BERT.*give a bundle of a BERT"):
        read_encoder(Bundle(tmp_path, bundle.manifest, "none"))
