"""Time OpenVINO on the whole encoder and layer by layer; print JSON. The argument is a job in JSON.

It runs in a virtual environment of its own.
"""

import json
import sys

import numpy as np
import openvino
from timing import time_calls

job = json.loads(sys.argv[1])
core = openvino.Core()


def load(file, precision, **more):
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", **more}
    return core.compile_model(core.read_model(file), "CPU", options).create_infer_request()


def whole(precision):
    request = load(job["model"], precision)
    names = [port.get_any_name() for port in request.model_inputs]

    def call(rows, tokens):
        ids = np.full((rows, tokens), 2003, np.int64)
        values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        request.infer({name: values.get(name, np.zeros_like(ids)) for name in names})

    return call


def by_layer(precision):
    one_thread = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    layers = [load(file, precision, **one_thread) for file in job["layers"]]
    size = layers[0].model_inputs[0].get_partial_shape()[2].get_length()

    def call(rows, tokens):
        hidden = np.random.default_rng(0).standard_normal((rows, tokens, size)).astype(np.float32)
        mask = np.ones((rows, tokens), np.int32)
        for layer in layers:
            layer.infer({"hidden": hidden, "mask": mask}, share_inputs=True)
            hidden = layer.get_tensor("hidden_out").data

    return call


calls = {f"OpenVINO {name}": whole(name) for name in ("f32", "bf16")}
calls |= {
    f"one thread, a session a layer: OpenVINO {name}": by_layer(name) for name in ("f32", "bf16")
}
print(json.dumps(time_calls(calls, job["shapes"], job["calls"], job["runs"])))
