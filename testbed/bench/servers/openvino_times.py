"""Times OpenVINO: an ONNX encoder, and layer by layer. Runs in a virtual environment of its own."""

import json
import statistics
import sys
import time

import numpy as np
import openvino

asked = json.loads(sys.argv[1])
core = openvino.Core()
table = {}


def load(file, precision, **more):
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", **more}
    return core.compile_model(core.read_model(file), "CPU", options).create_infer_request()


def measure(name, make_call):
    table[name] = {}
    for rows, tokens in asked["shapes"]:
        call = make_call(rows, tokens)
        call()
        found = []
        for _ in range(asked["runs"]):
            started = time.perf_counter()
            for _ in range(asked["calls"]):
                call()
            found.append((time.perf_counter() - started) * 1e3 / asked["calls"])
        table[name][f"{rows}x{tokens}"] = round(statistics.median(found), 3)


def whole(precision):
    request = load(asked["model"], precision)
    names = [port.get_any_name() for port in request.model_inputs]

    def make_call(rows, tokens):
        ids = np.full((rows, tokens), 2003, np.int64)
        values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        given = {name: values.get(name, np.zeros_like(ids)) for name in names}
        return lambda: request.infer(given)

    return make_call


def by_layer(precision):
    one_thread = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    layers = [load(file, precision, **one_thread) for file in asked["layers"]]
    size = layers[0].model_inputs[0].get_partial_shape()[2].get_length()

    def make_call(rows, tokens):
        first = np.random.default_rng(0).standard_normal((rows, tokens, size)).astype(np.float32)
        mask = np.ones((rows, tokens), np.int32)

        def call():
            hidden = first
            for layer in layers:
                layer.infer({"hidden": hidden, "mask": mask}, share_inputs=True)
                hidden = layer.get_tensor("hidden_out").data

        return call

    return make_call


for precision in ("f32", "bf16"):
    measure(f"OpenVINO {precision}", whole(precision))
for precision in ("f32", "bf16"):
    measure(f"one thread, a session a layer: OpenVINO {precision}", by_layer(precision))
print(json.dumps(table))
