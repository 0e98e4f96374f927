"""Compare the runtime ``cuda`` with onnxruntime's answers and with transformers' speed; print JSON.

The job is read from stdin. Times include the copy of token ids to the device and of the answers
back.
"""

import json
import statistics
import sys
import time

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from shared.bundle.loading import load_bundle
from shared.domain import LayerRange
from shared.inference.classifier import Classifier
from shared.inference.devices import ComputeDevice
from shared.inference.layer_batcher import Row

TOKENS = 32
AGREEMENT_BATCH = 64
job = json.loads(sys.stdin.read())
DEVICE = torch.device(job["device"])
RUNTIME = ComputeDevice("cuda", str(DEVICE) if DEVICE.type == "cpu" else "cuda:0")


def log(line):
    print(line, file=sys.stderr, flush=True)


def classifier_of(path, device=None):
    bundle = load_bundle(path)
    layers = LayerRange(1, bundle.manifest.layers)
    return Classifier(bundle, layers, 1, device) if device else Classifier(bundle, layers)


def run_rows(batcher, sources, alpha):
    """Run one batch to its end; return the predictions."""
    rows = [Row(source, 0, alpha) for source in sources]
    batcher.admit(rows)
    done = {}
    while not batcher.idle:
        done.update(batcher.step())
    return [done[row] for row in rows]


def answers(classifier, sources, alpha):
    """Return labels, exit layers and confidences, computed in batches of similar length."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found = [None] * len(sources)
    for start in range(0, len(order), AGREEMENT_BATCH):
        part = order[start : start + AGREEMENT_BATCH]
        rows = [sources[i] for i in part]
        if hasattr(classifier.layers, "batcher"):
            predictions = run_rows(classifier.layers.batcher(), rows, alpha)
        else:
            predictions = classifier.classify(rows, alpha)
        for i, prediction in zip(part, predictions, strict=True):
            found[i] = (prediction.label_index, prediction.exit_layer, prediction.confidence)
    return found


def agreement(ours, alpha, sources):
    onnx = classifier_of(job["models"][0]["bundle"])
    table = {}
    for name, threshold in (("last exit", None), ("early exit", alpha)):
        pairs = list(
            zip(answers(ours, sources, threshold), answers(onnx, sources, threshold), strict=True)
        )
        same_exit = [(one, other) for one, other in pairs if one[1] == other[1]]
        table[name] = {
            "texts": len(pairs),
            "other_label": sum(one[0] != other[0] for one, other in pairs),
            "other_exit": len(pairs) - len(same_exit),
            "largest_difference": round(
                max(abs(one[2] - other[2]) for one, other in same_exit if one[0] == other[0]), 4
            ),
        }
        log(f"  agreement, {name}: {table[name]}")
    return table


def mean_share(classifier, sources, alpha):
    exits = [layer for _, layer, _ in answers(classifier, sources, alpha)]
    return statistics.mean(exits) / classifier.bundle.manifest.layers


def alpha_of_share(classifier, sources, share):
    """Return the threshold at which texts exit, on average, after this share of the layers."""
    low, high = 1 / len(classifier.bundle.manifest.labels), 1.0
    for _ in range(job["bisections"]):
        middle = (low + high) / 2
        if mean_share(classifier, sources, middle) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def transformers_call(folder, compiled):
    dtype = torch.bfloat16
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
    model = model.eval().to(DEVICE)
    if compiled:
        model = torch.compile(model, mode="reduce-overhead", dynamic=False)

    def call(sources):
        ids_BT = np.zeros((len(sources), TOKENS), np.int64)
        for i, source in enumerate(sources):
            ids_BT[i, : len(source)] = source.ids_T
        mask_BT = torch.from_numpy(np.arange(TOKENS) < np.array([[len(s)] for s in sources]))
        with torch.inference_mode():
            logits = model(
                input_ids=torch.from_numpy(ids_BT).to(DEVICE),
                attention_mask=mask_BT.long().to(DEVICE),
            ).logits
            return logits.float().softmax(-1).cpu()

    return call


def seconds_of(call, sources):
    """Return seconds of one call: the median of calls for ``job['seconds']``."""
    times = []
    until = time.perf_counter() + job["seconds"]
    while time.perf_counter() < until or len(times) < job["least_calls"]:
        started = time.perf_counter()
        call(sources)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def speeds(model, ours, alpha, sources):
    """Return milliseconds and texts a second by batch and method, medians of alternating runs."""
    batcher = ours.layers.batcher()
    calls = {
        "early exit off": lambda batch: run_rows(batcher, batch, None),
        "early exit on": lambda batch: run_rows(batcher, batch, alpha),
        "transformers eager bf16": transformers_call(model["transformers"], False),
    }
    if job["compile"]:
        calls["torch.compile bf16"] = transformers_call(model["transformers"], True)
    table = {}
    for size in job["batches"]:
        batch = [sources[i % len(sources)] for i in range(size)]
        for call in calls.values():  # captures and compiles
            for _ in range(job["warm_ups"]):
                call(batch)
        seconds = {name: [] for name in calls}
        for _ in range(job["runs"]):
            for name, call in calls.items():
                seconds[name].append(seconds_of(call, batch))
        table[str(size)] = {
            name: {
                "ms": round(1e3 * statistics.median(values), 4),
                "texts_s": round(size / statistics.median(values), 1),
            }
            for name, values in seconds.items()
        }
        log(f"  {model['name']}, batch {size}: {table[str(size)]}")
    return table


report = {
    "torch": torch.__version__,
    "device": torch.cuda.get_device_name(0) if DEVICE.type == "cuda" else "cpu (smoke test)",
    "tokens": TOKENS,
    "models": {},
}
share = None
for model in job["models"]:
    ours = classifier_of(model["bundle"], RUNTIME)
    sources = [ours.encoder.encode(text, pair) for text, pair in job["texts"]]
    short = [source for source in sources if len(source) <= TOKENS]
    alpha = ours.bundle.manifest.alpha
    if share is None:
        report["agreement"] = agreement(ours, alpha, sources)
        share = mean_share(ours, short, alpha)
    else:
        alpha = alpha_of_share(ours, short, share)
    report["models"][model["name"]] = {
        "alpha": alpha,
        "mean_exit_share": round(mean_share(ours, short, alpha), 3),
        "by_batch": speeds(model, ours, alpha, short),
    }
if DEVICE.type == "cuda":
    report["peak_gpu_mb"] = round(torch.cuda.max_memory_reserved() / 1e6)
print(json.dumps(report))
