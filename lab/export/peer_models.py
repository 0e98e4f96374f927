"""Models of other inference servers with the weights of a bundle, for ``dimee bench``.

``python -m lab.export.peer_models BUNDLE FOLDER`` writes the models of `write_models` that FOLDER
lacks. Integer weights become fp32 again. The other servers read a sequence classifier of
``transformers``, whose head reads the first token through a pooler; that head is not the bundle's,
so that answers differ. The encoder, with more than 99.9 % of the multiplications, is the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from shared.bundle.loading import Bundle, load_bundle
from shared.bundle.manifest import EMBEDDINGS, MANIFEST, TOKENIZER, layer_file
from shared.errors import DimeeError, InvalidInput
from shared.extras import imports_of

with imports_of("lab.export.peer_models", "lab"):
    import onnx
    import torch
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import (
        AutoModelForSequenceClassification,
        BertConfig,
        BertForSequenceClassification,
        BertModel,
    )

    from lab.export.layers import write_layers
    from lab.models.exit_heads import ExitShape
    from lab.models.model import MultiExitClassifier

Arrays = dict[str, NDArray[Any]]
SUBLAYERS = {
    "attention": "attention.output",
    "output": "output",
}


def read_encoder(bundle: Bundle) -> BertModel:
    """Return the encoder of an exported BERT bundle in fp32, without a pooler.

    Raises `InvalidInput` for the bundle of another encoder family.
    """
    check_bert(bundle)
    tables = load_file(bundle.path / EMBEDDINGS)
    layers = [_arrays(bundle, number) for number in range(1, bundle.manifest.layers + 1)]
    config = BertConfig(
        vocab_size=len(tables["word"]),
        hidden_size=bundle.manifest.hidden_size,
        num_hidden_layers=len(layers),
        num_attention_heads=_heads(bundle),
        intermediate_size=len(layers[0]["inner.bias"]),
        max_position_embeddings=len(tables["position"]),
        type_vocab_size=len(tables["type"]),
        layer_norm_eps=float(tables["epsilon"][0]),
        id2label=dict(enumerate(bundle.manifest.labels)),
        label2id={label: index for index, label in enumerate(bundle.manifest.labels)},
    )
    weights: Arrays = {
        "embeddings.word_embeddings.weight": tables["word"] * tables["word_scale"][:, None],
        "embeddings.position_embeddings.weight": tables["position"],
        "embeddings.token_type_embeddings.weight": tables["type"],
        "embeddings.LayerNorm.weight": tables["gamma"],
        "embeddings.LayerNorm.bias": tables["beta"],
    }
    for number, arrays in enumerate(layers):
        weights |= {
            f"encoder.layer.{number}.{name}": values for name, values in _layer(arrays).items()
        }
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
    return model.eval()


def write_transformers_model(bundle: Bundle, folder: Path) -> None:
    """Write a folder that ``AutoModelForSequenceClassification.from_pretrained`` reads."""
    encoder = read_encoder(bundle)
    torch.manual_seed(0)
    model = BertForSequenceClassification(encoder.config).eval()
    model.bert.load_state_dict(encoder.state_dict(), strict=False)
    model.save_pretrained(folder)
    shutil.copy(bundle.path / TOKENIZER, folder)
    settings = {
        "tokenizer_class": "BertTokenizer",
        "model_max_length": bundle.manifest.max_tokens,
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_onnx(source: Path, folder: Path) -> None:
    """Export a folder of `write_transformers_model` to ``model.onnx``, as optimum does."""
    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    model.config.return_dict = False
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids_BT = torch.ones((2, 8), dtype=torch.int64)
    part = folder.with_suffix(".part")
    _copy_tokenizer(source, part)
    torch.onnx.export(
        model,
        (ids_BT, torch.ones_like(ids_BT), torch.zeros_like(ids_BT)),
        str(part / "model.onnx"),
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names} | {"logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    part.rename(folder)


def write_dynamic_int8(source: Path, folder: Path) -> None:
    """Quantise a folder of `write_onnx` with onnxruntime: one activation scale a batch."""
    part = folder.with_suffix(".part")
    _copy_tokenizer(source, part)
    quantize_dynamic(
        source / "model.onnx",
        part / "model_quantized.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    part.rename(folder)


def _copy_tokenizer(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)


def write_fp32_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the bundle with fp32 layers, for a comparison at equal precision."""
    shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
    exits = read_exits(bundle)
    model = MultiExitClassifier(
        read_encoder(bundle), len(bundle.manifest.labels), shapes=[shape for shape, _ in exits]
    )
    for head, (_, weights) in zip(model.exit_heads, exits, strict=True):
        head.load_state_dict(weights)
    write_layers(model.eval(), folder, bits=None)
    manifest = json.loads((folder / MANIFEST).read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    manifest["precision"] = "fp32"
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2))


def read_exits(bundle: Bundle) -> list[tuple[ExitShape, dict[str, torch.Tensor]]]:
    """Return the shape and the state dict of each exit head of an exported bundle."""
    return [_exit(_graph(bundle, number)) for number in range(1, bundle.manifest.layers + 1)]


def write_fused_graph(bundle: Path, file: Path) -> None:
    """Write all layers of a bundle as one graph with the last exit only."""
    layers = load_bundle(bundle).manifest.layers
    whole = None
    for number in range(1, layers + 1):
        part = onnx.load(str(bundle / layer_file(number)))
        part = onnx.compose.add_prefix(part, f"{number}_", rename_inputs=True)
        if whole is None:
            whole = part
            continue
        pair = [(f"{number - 1}_hidden_out", f"{number}_hidden")]
        whole = onnx.compose.merge_models(whole, part, io_map=pair)
    assert whole is not None
    extractor = onnx.utils.Extractor(whole)
    masks = [f"{number}_mask" for number in range(1, layers + 1)]
    onnx.save(extractor.extract_model(["1_hidden", *masks], [f"{layers}_logits"]), str(file))


def write_models(bundle: Bundle, folder: Path, report: Callable[[str], None] = print) -> None:
    """Write every model that is missing in ``folder``; raises `InvalidInput` as `check_bert`."""
    check_bert(bundle)
    steps: dict[str, Callable[[Path], None]] = {
        "fp32": lambda path: write_fp32_bundle(bundle, path),
        "transformers": lambda path: write_transformers_model(bundle, path),
        "onnx": lambda path: write_onnx(folder / "transformers", path),
        "onnx-int8": lambda path: write_dynamic_int8(folder / "onnx", path),
        "fused-fp32.onnx": lambda path: write_fused_graph(folder / "fp32", path),
        "fused-shipped.onnx": lambda path: write_fused_graph(bundle.path, path),
    }
    for name, write in steps.items():
        if not (folder / name).exists():
            report(f"writing {folder / name} …")
            write(folder / name)


def check_bert(bundle: Bundle) -> None:
    """Raise `InvalidInput` for the bundle of another encoder family than BERT."""
    tables = load_file(bundle.path / EMBEDDINGS)
    operators = {node.op_type for node in _graph(bundle, 1).node}
    biased = "attention_bias.table" in _arrays(bundle, 1)
    if biased or "BiasGelu" not in operators or "projection" in tables or len(tables["type"]) < 2:
        raise InvalidInput(
            f"bundle: {bundle.path} has an encoder of another kind than BERT with gelu; give a "
            "bundle of a BERT encoder to compare with other servers"
        )


def _graph(bundle: Bundle, number: int) -> onnx.GraphProto:
    return onnx.load(str(bundle.path / layer_file(number))).graph


def _arrays(bundle: Bundle, number: int) -> Arrays:
    return {
        tensor.name: numpy_helper.to_array(tensor) for tensor in _graph(bundle, number).initializer
    }


def _heads(bundle: Bundle) -> int:
    for node in _graph(bundle, 1).node:
        if node.op_type == "MultiHeadAttention":
            return next(
                int(attribute.i) for attribute in node.attribute if attribute.name == "num_heads"
            )
    raise ValueError(f"bundle: {bundle.path} was not written by dimee export")


def _weight(arrays: Arrays, name: str) -> NDArray[np.float32]:
    """Return a weight of the graph in torch's order (out, in), from integers or from fp32."""
    weight_IO = arrays[f"{name}.weight"].astype(np.float32)
    scale_O = arrays.get(f"{name}.scale")
    weight_OI: NDArray[np.float32] = (weight_IO if scale_O is None else weight_IO * scale_O).T
    return np.ascontiguousarray(weight_OI)


def _layer(arrays: Arrays) -> Arrays:
    weights = np.split(_weight(arrays, "qkv"), 3)
    biases = np.split(arrays["qkv.bias"], 3)
    named: Arrays = {}
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        named[f"attention.self.{name}.weight"] = weight
        named[f"attention.self.{name}.bias"] = bias
    named["intermediate.dense.weight"] = _weight(arrays, "inner")
    named["intermediate.dense.bias"] = arrays["inner.bias"]
    for ours, theirs in SUBLAYERS.items():
        named[f"{theirs}.dense.weight"] = _weight(arrays, f"{ours}.dense")
        named[f"{theirs}.dense.bias"] = arrays[f"{ours}.bias"]
        named[f"{theirs}.LayerNorm.weight"] = arrays[f"{ours}.gamma"]
        named[f"{theirs}.LayerNorm.bias"] = arrays[f"{ours}.beta"]
    return named


def _exit(graph: onnx.GraphProto) -> tuple[ExitShape, dict[str, torch.Tensor]]:
    """Return the shape of the exit head in a layer's graph, and its state dict."""
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    pooling = "both" if "pooled" in made_by else "mean" if "mean" in made_by else "cls"
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    last = {part: torch.tensor(arrays[f"exit.{part}"]) for part in ("weight", "bias")}
    if "exit.1.weight" not in arrays:
        return ExitShape(pooling), last
    hidden = {f"0.{part}": torch.tensor(arrays[f"exit.1.{part}"]) for part in ("weight", "bias")}
    # bundles of older versions name the output of their tanh differently
    activation = made_by.get("exit.1.activated", "Tanh").lower()
    shape = ExitShape(pooling, len(hidden["0.bias"]), activation)
    return shape, hidden | {f"2.{part}": values for part, values in last.items()}


if __name__ == "__main__":
    try:
        write_models(load_bundle(Path(sys.argv[1])), Path(sys.argv[2]))
    except DimeeError as error:
        sys.exit(str(error))
