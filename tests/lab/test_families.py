"""Every encoder family: exported layers and embeddings equal torch's, alone and in any batch.

The weights are random, biases and norms included. The reference runs in fp64, so that only the
rounding of the exported layers differs.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lab.evaluate.outputs import SavedOutputs, write_outputs
from lab.evaluate.samples import samples_of_bundle, samples_of_run
from lab.evaluate.source import RunOutputs
from lab.export import layers as export_layers
from lab.export.bundle import pools_of_run
from lab.export.layers import write_bundle, write_embeddings, write_layers
from lab.models.encoders import load_tokenizer
from lab.models.families import MODEL_TYPES
from lab.models.inputs import torch_inputs
from lab.models.model import new_model
from lab.models.run import Run
from shared.bundle.loading import Bundle, load_bundle
from shared.bundle.manifest import EMBEDDINGS
from shared.domain import LayerRange
from shared.inference.classifier import Classifier
from shared.inference.embeddings import Embeddings
from shared.inference.layers import Layers
from shared.inference.tokenizer import EncodedText, TextEncoder
from tests.support.tiny_data import make_pair_rows, make_rows, write_rows
from tests.support.tiny_encoders import CONFIGS, randomise, write_encoder
from tests.support.tiny_runs import write_fixed_run

TOKENS = 64
LAYERS = 3
TEXTS: list[tuple[str, str | None]] = [
    ("a", None),
    ("a warm day and a very lovely night", None),
    ("the film was very dull [SEP] and </s> the book was grim", None),
    ("fine " * 100, None),
    ("a warm day", "the night was cold"),
    ("the book " * 40, "the very dull film " * 40),
]
Floats = NDArray[np.float64]


class Tiny:
    """A tiny model of a family, its tokenizer, and its layers and embeddings in fp32."""

    def __init__(
        self, folder: Path, bundle: Bundle, encoder: Path, pad: int, tokens: int = TOKENS
    ) -> None:
        self.model = randomise(new_model(str(encoder), 2, "mean"), 7).eval()
        write_layers(self.model, folder, bits=None)
        write_embeddings(self.model, folder / EMBEDDINGS)
        self.exported = Bundle(folder, bundle.manifest, "none")
        self.embeddings = Embeddings(folder / EMBEDDINGS)
        self.encoder = TextEncoder(encoder / "tokenizer.json", tokens)
        self.pad = pad
        self.model.double()

    def rows(self) -> list[EncodedText]:
        return [self.encoder.encode(text, pair) for text, pair in TEXTS]

    @torch.inference_mode()
    def expected(self, rows: list[EncodedText]) -> tuple[list[Floats], Floats]:
        """Return torch's hidden states, from the embeddings on, and logits of every exit."""
        inputs = torch_inputs(rows, self.model.family, self.pad)
        states = self.model.encoder(**inputs, output_hidden_states=True).hidden_states
        return [state.numpy() for state in states], self.model(inputs).numpy()


@pytest.fixture(scope="module", params=list(CONFIGS))
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder of each family."""
    return write_encoder(request.param, tmp_path_factory.mktemp(request.param), TOKENS)


@pytest.fixture(scope="module")
def tiny(encoder: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("exported"), bundle, encoder, _padding(encoder))


def _padding(encoder: Path) -> int:
    return int(load_tokenizer(str(encoder)).pad_token_id)


def content(hidden_BTH: NDArray[Any], rows: list[EncodedText]) -> list[NDArray[Any]]:
    """Return the hidden states of each row without padding."""
    return [hidden_TH[: row.tokens] for hidden_TH, row in zip(hidden_BTH, rows, strict=True)]


def assert_close(got: list[NDArray[Any]], expected: list[NDArray[Any]]) -> None:
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)


def test_every_family_is_tested() -> None:
    assert set(CONFIGS) == set(MODEL_TYPES)


def test_embeddings_equal_torchs_for_texts_and_pairs_of_any_length(tiny: Tiny) -> None:
    rows = tiny.rows()
    assert max(row.tokens for row in rows) == TOKENS
    assert rows[3].truncated
    assert rows[5].truncated
    states, _ = tiny.expected(rows)
    hidden_BTH, mask_BT = tiny.embeddings.first_hidden(rows)
    assert mask_BT.sum(1).tolist() == [row.tokens for row in rows]
    assert_close(content(hidden_BTH, rows), content(states[0], rows))
    for row, hidden_TH in zip(rows, tiny.embeddings.hidden_of(rows), strict=True):
        (alone_TH,), _ = tiny.embeddings.first_hidden([row])
        np.testing.assert_array_equal(hidden_TH, alone_TH)


def test_layers_equal_torchs_from_every_split(tiny: Tiny) -> None:
    """Hidden states and logits, in a padded batch and alone."""
    rows = tiny.rows()
    states, logits_EBC = tiny.expected(rows)
    parts = [Layers(tiny.exported, LayerRange(i, i), threads=1) for i in range(1, LAYERS + 1)]
    batches = [list(range(len(rows))), [0, 2], *([i] for i in range(len(rows)))]
    for split in range(LAYERS):
        for batch in batches:
            some = [rows[i] for i in batch]
            width = max(row.tokens for row in some)
            hidden_BTH = np.ascontiguousarray(states[split][batch, :width].astype(np.float32))
            _, mask_BT = tiny.embeddings.first_hidden(some)
            for layer in range(split, LAYERS):
                hidden_BTH, logits_BC = parts[layer].run_layer(layer + 1, hidden_BTH, mask_BT)
                np.testing.assert_allclose(logits_BC, logits_EBC[layer, batch], atol=2e-4)
                assert_close(content(hidden_BTH, some), content(states[layer + 1][batch], some))


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "relu"])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_other_activations_equal_torchs(
    kind: str, activation: str, bundle: Bundle, tmp_path: Path
) -> None:
    name = "activation" if kind == "distilbert" else "hidden_act"
    encoder = write_encoder(kind, tmp_path / "encoder", TOKENS, **{name: activation})
    tiny = Tiny(tmp_path / "exported", bundle, encoder, 0)
    rows = tiny.rows()
    _, logits_EBC = tiny.expected(rows)
    hidden_BTH, mask_BT = tiny.embeddings.first_hidden(rows)
    for layer in range(1, LAYERS + 1):
        part = Layers(tiny.exported, LayerRange(layer, layer), threads=1)
        hidden_BTH, logits_BC = part.run_layer(layer, hidden_BTH, mask_BT)
        np.testing.assert_allclose(logits_BC, logits_EBC[layer - 1], atol=2e-4)


def test_relative_bias_at_distances_of_all_buckets(bundle: Bundle, tmp_path: Path) -> None:
    """From 128 tokens on, all distances share a bucket."""
    encoder = write_encoder("mpnet", tmp_path / "encoder", 300)
    tiny = Tiny(tmp_path / "exported", bundle, encoder, 1, 300)
    rows = [tiny.encoder.encode("fine warm night " * words) for words in (100, 40)]
    assert [row.tokens for row in rows] == [300, 122]
    _, logits_EBC = tiny.expected(rows)
    hidden_BTH, mask_BT = tiny.embeddings.first_hidden(rows)
    for layer in range(1, LAYERS + 1):
        part = Layers(tiny.exported, LayerRange(layer, layer), threads=1)
        hidden_BTH, logits_BC = part.run_layer(layer, hidden_BTH, mask_BT)
        np.testing.assert_allclose(logits_BC, logits_EBC[layer - 1], atol=2e-4)


def whole_bundle(run: Path, folder: Path, bits: int | None, monkeypatch: Any) -> Bundle:
    """Write the bundle of a run, in fp32 or in 8 bits, and load it."""
    monkeypatch.setattr(export_layers, "write_layers", partial(write_layers, bits=bits))
    loaded = Run(run)
    pools = pools_of_run(loaded, None, 1, 2, 0.1, None, 256)
    write_bundle(loaded, pools, folder, 256, {})
    return load_bundle(folder)


@pytest.fixture(scope="module", params=["sst2", "mrpc"])
def fixed_run(
    encoder: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of each family on single texts and on pairs, with random weights."""
    folder = tmp_path_factory.mktemp("run")
    rows = make_rows(200, 3) if request.param == "sst2" else make_pair_rows(200, 3)
    data = write_rows(folder / "data" / "train.jsonl", rows).parent
    return write_fixed_run(folder / "run", data, encoder, request.param, fix=randomise)


def test_bundle_in_fp32_has_the_probabilities_and_embeddings_of_its_run(
    fixed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer, the tables and the layers together, on single texts and on pairs."""
    bundle = whole_bundle(fixed_run, tmp_path / "bundle", None, monkeypatch)
    assert bundle.manifest.max_tokens == TOKENS
    run = Run(fixed_run)
    examples = run.split().test
    direct = samples_of_run(run, examples, "test")
    exported = samples_of_bundle(bundle, examples)
    np.testing.assert_allclose(direct.probabilities_NEC, exported.probabilities_NEC, atol=1e-3)
    np.testing.assert_allclose(direct.embedding_NH, exported.embedding_NH, atol=1e-6)
    np.testing.assert_array_equal(direct.tokens_N, exported.tokens_N)
    assert direct.embedding_NH.shape[1] == run.model.family.embedding_size
    if direct.pair_NP is not None and exported.pair_NP is not None:
        np.testing.assert_allclose(direct.pair_NP, exported.pair_NP, atol=1e-5)


def test_bundle_in_8_bits_answers_alike_alone_in_a_batch_and_resumed(
    fixed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding may round an activation to the next of its 255 steps; a resumed row has none."""
    bundle = whole_bundle(fixed_run, tmp_path / "bundle", 8, monkeypatch)
    whole = Classifier(bundle, LayerRange(1, LAYERS))
    rows = [whole.encoder.encode(row.text, row.pair) for row in Run(fixed_run).split().test]
    long = "very dull " * 60
    rows.append(whole.encoder.encode(long, long if bundle.manifest.pairs else None))
    together = whole.classify(rows, None)
    for row, in_batch in zip(rows, together, strict=True):
        keep: dict[int, NDArray[np.float32]] = {}
        (alone,) = whole.classify([row], None, keep=keep)
        np.testing.assert_allclose(alone.probabilities, in_batch.probabilities, atol=0.05)
        for layer in range(1, LAYERS):
            whole.classify([row], None, layer, keep=keep)
            assert keep[0].shape == (row.tokens, 32)
            assert whole.resume(keep[0], layer, None) == alone


def test_outputs_have_the_width_of_the_layers_not_of_the_embeddings(tmp_path: Path) -> None:
    encoder = write_encoder("electra", tmp_path / "encoder")
    for name, rows in (("train", 200), ("validation", 40)):
        write_rows(tmp_path / "data" / f"{name}.jsonl", make_rows(rows, 3))
    run = write_fixed_run(tmp_path / "run", tmp_path / "data", encoder, split="glue", fix=randomise)
    source = RunOutputs(Run(run))
    write_outputs(source, tmp_path / "outputs", None, train_logits=False)
    written = SavedOutputs(tmp_path / "outputs", str(tmp_path / "data"))
    assert source.hidden_size == written.hidden_size == 32
    assert written.validation().embedding_NH.shape[1] == 16
