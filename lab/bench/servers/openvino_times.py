"""Times OpenVINO on an ONNX encoder. Runs in a virtual environment of its own."""

import json
import statistics
import sys
import time

import numpy as np
import openvino

asked = json.loads(sys.argv[1])
core = openvino.Core()
table = {}
for precision in ("f32", "bf16"):
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(asked["model"]), "CPU", options)
    request = compiled.create_infer_request()
    names = [port.get_any_name() for port in compiled.inputs]
    table[f"OpenVINO {precision}"] = {}
    for rows, tokens in asked["shapes"]:
        ids = np.full((rows, tokens), 2003, np.int64)
        values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        given = {name: values.get(name, np.zeros_like(ids)) for name in names}
        request.infer(given)
        found = []
        for _ in range(asked["runs"]):
            started = time.perf_counter()
            for _ in range(asked["calls"]):
                request.infer(given)
            found.append((time.perf_counter() - started) * 1e3 / asked["calls"])
        table[f"OpenVINO {precision}"][f"{rows}x{tokens}"] = round(statistics.median(found), 3)
print(json.dumps(table))
