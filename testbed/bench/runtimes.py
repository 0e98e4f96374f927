"""Comparison of runtimes: one call of the whole encoder, by runtime, precision and shape.

Shape suffixes: B rows, T tokens, H hidden size.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from shared.bundle.loading import load_bundle
from shared.cpus import usable_cores
from shared.domain import LayerRange
from shared.inference.layers import Layers
from testbed.bench.peers import SERVERS
from testbed.bench.servers.timing import Call, time_calls
from testbed.bench.setup import make_venv
from testbed.processes.children import run_watched

SHAPES = ((1, 16), (1, 64), (8, 16), (8, 64))
OPENVINO = (("openvino", "numpy"),)
CALLS = 12


def compare_runtimes(models: dict[str, Path], venvs: Path, runs: int) -> dict[str, Any]:
    """Return milliseconds of a call by runtime and shape, as medians of ``runs`` rounds.

    torch and OpenVINO run in processes of their own.
    """
    threads = usable_cores()
    job = {"shapes": SHAPES, "calls": CALLS, "runs": runs, "threads": threads}
    table: dict[str, Any] = _run_script(
        Path(sys.executable), "torch_times.py", job | {"model": str(models["transformers"])}
    )
    table |= time_calls(_onnxruntime_calls(models, threads), SHAPES, CALLS, runs)
    layers = [str(file) for file in sorted((models["fp32"] / "layers").glob("*.onnx"))]
    python = make_venv("openvino", OPENVINO, venvs) / "bin" / "python"
    model = str(models["onnx"] / "model.onnx")
    return table | _run_script(
        python, "openvino_times.py", job | {"model": model, "layers": layers}
    )


def _run_script(python: Path, name: str, job: dict[str, Any]) -> dict[str, Any]:
    command = [str(python), str(SERVERS / name), json.dumps(job)]
    done = run_watched(command, stderr=subprocess.PIPE)
    if done.returncode:
        print(f"{name} failed and is left out:\n{done.stderr[-2000:]}", file=sys.stderr)
        return {}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _onnxruntime_calls(models: dict[str, Path], threads: int) -> dict[str, Call]:
    fp32, shipped = models["fp32"], models["shipped"]
    fused_fp32 = fp32.parent / "fused-fp32.onnx"
    fused_int8 = fp32.parent / "fused-shipped.onnx"
    return {
        "onnxruntime fp32, one graph": _graph_call(fused_fp32, threads),
        "onnxruntime fp32, a session a layer": _layers_call(fp32, threads),
        "onnxruntime dynamic int8 (a scale a batch), with embeddings": _ids_call(
            models["onnx-int8"] / "model_quantized.onnx", threads
        ),
        "onnxruntime int8 (a scale a row), one graph": _graph_call(fused_int8, threads),
        "onnxruntime int8 (a scale a row), a session a layer": _layers_call(shipped, threads),
        "one thread, one graph: onnxruntime fp32": _graph_call(fused_fp32, 1),
        "one thread, a session a layer: onnxruntime fp32": _layers_call(fp32, 1),
        "one thread, one graph: onnxruntime int8 (a scale a row)": _graph_call(fused_int8, 1),
        "one thread, a session a layer: onnxruntime int8 (a scale a row)": _layers_call(shipped, 1),
    }


def _session(file: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _ids_call(file: Path, threads: int) -> Call:
    session = _session(file, threads)
    names = [port.name for port in session.get_inputs()]

    def call(B: int, T: int) -> None:
        ids_BT = np.full((B, T), 2003, np.int64)
        values = {"input_ids": ids_BT, "attention_mask": np.ones_like(ids_BT)}
        session.run(None, {name: values.get(name, np.zeros_like(ids_BT)) for name in names})

    return call


def _graph_call(file: Path, threads: int) -> Call:
    session = _session(file, threads)
    hidden_input, *mask_inputs = session.get_inputs()

    def call(B: int, T: int) -> None:
        mask_BT = np.ones((B, T), np.int32)
        inputs = {port.name: mask_BT for port in mask_inputs}
        session.run(None, inputs | {hidden_input.name: _random_hidden(B, T, hidden_input.shape[2])})

    return call


def _layers_call(bundle: Path, threads: int) -> Call:
    loaded = load_bundle(bundle)
    count = loaded.manifest.layers
    layers = Layers(loaded, LayerRange(1, count), threads)

    def call(B: int, T: int) -> None:
        hidden_BTH = _random_hidden(B, T, loaded.manifest.hidden_size)
        mask_BT = np.ones((B, T), np.int32)
        for number in range(1, count + 1):
            hidden_BTH, _ = layers.run_layer(number, hidden_BTH, mask_BT)

    return call


def _random_hidden(B: int, T: int, H: int) -> Any:
    return np.random.default_rng(0).standard_normal((B, T, H)).astype(np.float32)
