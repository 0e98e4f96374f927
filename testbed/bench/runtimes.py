"""Which runtime: one call of the whole encoder on all cores, by runtime, precision and shape.

Shape suffixes: B rows, T tokens, H hidden size.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from transformers import AutoModel

from shared.bundle.loading import load_bundle
from shared.domain import LayerRange
from shared.inference.layers import Layers
from testbed.bench.peers import SERVERS
from testbed.bench.setup import make_venv

SHAPES = ((1, 16), (1, 64), (8, 16), (8, 64))
OPENVINO = (("openvino", "numpy"),)
CALLS = 12
Call = Callable[[int, int], None]


def runtimes(models: dict[str, Path], venvs: Path, folder: Path, runs: int) -> dict[str, Any]:
    """Milliseconds by runtime and shape: medians of ``runs`` alternating rounds of some calls."""
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    calls = _torch_calls(models["transformers"]) | _onnx_calls(models, folder, threads)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in calls}
    for B, T in SHAPES:
        for call in calls.values():
            call(B, T)
            call(B, T)
        for _ in range(runs):
            for name, call in calls.items():
                started = time.perf_counter()
                for _ in range(CALLS):
                    call(B, T)
                spent_ms = (time.perf_counter() - started) * 1e3 / CALLS
                found[name].setdefault(f"{B}x{T}", []).append(spent_ms)
    table: dict[str, Any] = {
        name: {shape: round(statistics.median(ms), 3) for shape, ms in shapes.items()}
        for name, shapes in found.items()
    }
    if "onnx" in models and models["onnx"].exists():
        table |= _openvino(models["onnx"] / "model.onnx", models["fp32"], venvs, runs)
    return table


def _torch_calls(folder: Path) -> dict[str, Call]:
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    compiled = torch.compile(model, dynamic=False)

    def call(run: Any, bf16: bool = False) -> Call:
        def one(B: int, T: int) -> None:
            ids_BT = torch.full((B, T), 2003)
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                run(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))

        return one

    return {
        "torch eager": call(model),
        "torch bf16 autocast": call(model, bf16=True),
        "torch.compile": call(compiled),
    }


def _onnx_calls(models: dict[str, Path], folder: Path, threads: int) -> dict[str, Call]:
    fused = folder / "fused.onnx"
    fused_int8 = folder / "fused-shipped.onnx"
    _fuse(models["fp32"], fused)
    _fuse(models["shipped"], fused_int8)
    return {
        "onnxruntime fp32, one graph": _graph_call(fused, threads),
        "onnxruntime fp32, a session a layer": _layers_call(models["fp32"], threads),
        "onnxruntime dynamic int8 (a scale a batch), with embeddings": _ids_call(
            models["onnx-int8"] / "model_quantized.onnx", threads
        ),
        "onnxruntime int8 (a scale a row), one graph": _graph_call(fused_int8, threads),
        "onnxruntime int8 (a scale a row), a session a layer": _layers_call(
            models["shipped"], threads
        ),
        "one thread, one graph: onnxruntime fp32": _graph_call(fused, 1),
        "one thread, a session a layer: onnxruntime fp32": _layers_call(models["fp32"], 1),
        "one thread, one graph: onnxruntime int8 (a scale a row)": _graph_call(fused_int8, 1),
        "one thread, a session a layer: onnxruntime int8 (a scale a row)": _layers_call(
            models["shipped"], 1
        ),
    }


def _fuse(bundle: Path, file: Path) -> None:
    """All layers of a bundle as one graph, its exits but the last left out."""
    layers = load_bundle(bundle).manifest.layers
    whole = None
    for number in range(1, layers + 1):
        part = onnx.load(str(bundle / "layers" / f"{number:02}.onnx"))
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


def _session(file: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _ids_call(file: Path, threads: int) -> Call:
    session = _session(file, threads)

    def call(B: int, T: int) -> None:
        ids_BT = np.full((B, T), 2003, np.int64)
        values = {"input_ids": ids_BT, "attention_mask": np.ones_like(ids_BT)}
        names = [one.name for one in session.get_inputs()]
        session.run(None, {name: values.get(name, np.zeros_like(ids_BT)) for name in names})

    return call


def _graph_call(file: Path, threads: int) -> Call:
    session = _session(file, threads)
    size = session.get_inputs()[0].shape[2]

    def call(B: int, T: int) -> None:
        mask_BT = np.ones((B, T), np.int32)
        given = {one.name: mask_BT for one in session.get_inputs()[1:]}
        session.run(None, given | {session.get_inputs()[0].name: _hidden(B, T, size)})

    return call


def _layers_call(bundle: Path, threads: int) -> Call:
    loaded = load_bundle(bundle)
    count = loaded.manifest.layers
    layers = Layers(loaded, LayerRange(1, count), threads)

    def call(B: int, T: int) -> None:
        hidden_BTH = _hidden(B, T, loaded.manifest.hidden_size)
        mask_BT = np.ones((B, T), np.int32)
        for number in range(1, count + 1):
            hidden_BTH, _ = layers.run_layer(number, hidden_BTH, mask_BT)

    return call


def _hidden(B: int, T: int, H: int) -> Any:
    return np.random.default_rng(0).standard_normal((B, T, H)).astype(np.float32)


def _openvino(model: Path, bundle: Path, venvs: Path, runs: int) -> dict[str, Any]:
    place = make_venv("openvino", OPENVINO, venvs)
    script = [str(place / "bin" / "python"), str(SERVERS / "openvino_times.py")]
    layers = [str(file) for file in sorted((bundle / "layers").glob("*.onnx"))]
    what = {"model": str(model), "layers": layers, "shapes": SHAPES, "calls": CALLS, "runs": runs}
    asked = json.dumps(what)
    said = subprocess.run([*script, asked], capture_output=True, text=True, check=False)
    if said.returncode:
        print(said.stderr[-2000:], file=sys.stderr)
        return {}
    return dict(json.loads(said.stdout.splitlines()[-1]))
