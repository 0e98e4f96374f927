"""Models of the benchmark on a GPU: ``python -m lab.export.gpu_models BUNDLE FOLDER SIZES``.

SIZES is ``LAYERSxHIDDEN``. FOLDER receives ``shipped-transformers``, the weights of BUNDLE for
``transformers``; ``random``, a bundle of a BERT encoder of SIZES with random weights, for speed
only; and ``random-transformers``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from shared.bundle.loading import Bundle, load_bundle
from shared.bundle.manifest import EMBEDDINGS, MANIFEST, ROUTER, SAMPLES, TOKENIZER, layer_file
from shared.errors import DimeeError
from shared.extras import imports_of

with imports_of("lab.export.gpu_models", "lab"):
    import torch
    from safetensors.numpy import load_file
    from transformers import BertConfig, BertModel

    from lab.export.layers import sha256, write_embeddings, write_layers
    from lab.export.peer_models import write_transformers_model
    from lab.models.model import MultiExitClassifier

HEAD_SIZE = 64
"""Hidden size of an attention head, as in BERT."""


def write_random_bundle(source: Bundle, folder: Path, layers: int, hidden_size: int) -> Bundle:
    """Write a bundle with random weights and the tokenizer and labels of ``source``."""
    folder.mkdir(parents=True)
    (folder / "layers").mkdir()
    tables = load_file(source.path / EMBEDDINGS)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tables["word"]),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden_size // HEAD_SIZE),
        intermediate_size=4 * hidden_size,
        max_position_embeddings=len(tables["position"]),
    )
    classes = len(source.manifest.labels)
    model = MultiExitClassifier(BertModel(config, add_pooling_layer=False), classes).eval()
    write_layers(model, folder)
    write_embeddings(model, folder / EMBEDDINGS)
    shutil.copy(source.path / TOKENIZER, folder)
    centroids_DE = np.random.default_rng(0).standard_normal((3, hidden_size)).astype(np.float32)
    np.savez(folder / ROUTER, centroids=centroids_DE, counts=np.ones(3, np.int64))
    names = [TOKENIZER, EMBEDDINGS, ROUTER]
    names += [layer_file(layer) for layer in range(1, layers + 1)]
    manifest = source.manifest.model_dump(mode="json") | {
        "encoder": f"BERT of {layers} x {hidden_size} with random weights, for benchmarks",
        "layers": layers,
        "hidden_size": hidden_size,
        "mobile_layers": 1,
        "edge_layers": 2,
        "accuracy": {},
        "training": {},
        "files": {name: sha256(folder / name) for name in names if name != SAMPLES},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return load_bundle(folder)


def write_gpu_models(source: Bundle, folder: Path, layers: int, hidden_size: int) -> None:
    """Write the models that ``folder`` lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "shipped-transformers").exists():
        write_transformers_model(source, folder / "shipped-transformers")
    if not (folder / "random" / MANIFEST).exists():
        shutil.rmtree(folder / "random", ignore_errors=True)
        bundle = write_random_bundle(source, folder / "random", layers, hidden_size)
        write_transformers_model(bundle, folder / "random-transformers")


if __name__ == "__main__":
    try:
        sizes = [int(part) for part in sys.argv[3].split("x")]
        write_gpu_models(load_bundle(Path(sys.argv[1])), Path(sys.argv[2]), *sizes)
    except DimeeError as error:
        sys.exit(str(error))
