"""Study of resuming from a hidden state: its bytes, its time, and the links that make it faster.

``python -m lab.studies.resume`` writes ``extra/resume.json`` and ``resume.md`` of the results.

Shape suffixes: N examples, E exits, C classes, B rows, T tokens, H hidden size.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from lab.cli.common import PATH, results_option
from lab.data.examples import data_hash, load_examples
from lab.data.tasks import task_of_bundle
from lab.reports.pages import write_study
from shared.bundle.loading import Bundle, load_bundle
from shared.domain import LayerRange
from shared.errors import DimeeError
from shared.inference.classifier import Classifier
from shared.inference.codec import (
    CODECS,
    Floats,
    ResumeLimits,
    decode,
    encode,
    uplink_ms,
    worth_resuming,
)
from shared.inference.layers import softmax
from shared.inference.tokenizer import EncodedText
from shared.link_profiles import LINKS
from shared.settings import default_bundle

RUNS = 200
LENGTHS = (32, 128, 256)


def _limits(bundle: Bundle) -> ResumeLimits:
    manifest = bundle.manifest
    return ResumeLimits(
        bundle.bundle_id, manifest.hidden_size, manifest.max_tokens, manifest.layers
    )


def accuracy(
    classifier: Classifier, rows: list[EncodedText], labels_N: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Return for each layer to resume after the accuracy (percent) at the last exit by codec.

    ``moved`` is the largest difference of a probability of any later exit from fp32 in process,
    ``changed`` the number of answers of the last exit that differ.
    """
    limits = _limits(classifier.bundle)
    direct_NEC, states = _run_all_layers(classifier, rows)
    last = classifier.layers.range.last
    table = []
    for layer in range(1, last):
        line: dict[str, Any] = {
            "layer": layer,
            "fp32": {"accuracy": _percent(direct_NEC[:, -1].argmax(1) == labels_N)},
        }
        for codec in CODECS:
            resumed_NEC = np.empty((len(rows), last - layer, direct_NEC.shape[2]), np.float32)
            sent = 0
            for i, hidden_TH in enumerate(states[layer - 1]):
                body = encode(hidden_TH, layer, limits.bundle_id, codec)
                sent += len(body)
                resumed_NEC[i] = _resume(classifier, decode(body, limits).hidden_TH, layer)
            difference_NEC = np.abs(resumed_NEC - direct_NEC[:, layer:])
            answers_N = resumed_NEC[:, -1].argmax(1)
            line[codec] = {
                "accuracy": _percent(answers_N == labels_N),
                "changed": int((answers_N != direct_NEC[:, -1].argmax(1)).sum()),
                "moved": round(float(difference_NEC.max()), 5),
                "moved_last": round(float(difference_NEC[:, -1].max()), 5),
                "bytes_per_token": round(sent / sum(row.tokens for row in rows), 1),
                "bytes_per_text": round(sent / len(rows)),
            }
        table.append(line)
    return table


def _run_all_layers(
    classifier: Classifier, rows: list[EncodedText]
) -> tuple[Floats, list[list[Floats]]]:
    """Return ``probabilities_NEC`` of all layers, and ``hidden_TH`` of each row by layer."""
    last, classes = classifier.layers.range.last, len(classifier.bundle.manifest.labels)
    probabilities_NEC = np.empty((len(rows), last, classes), np.float32)
    states: list[list[Floats]] = [[] for _ in range(last)]
    for i, row in enumerate(rows):
        hidden_BTH, mask_BT = classifier.embeddings.first_hidden([row])
        for layer in range(1, last + 1):
            hidden_BTH, logits_BC = classifier.layers.run_layer(layer, hidden_BTH, mask_BT)
            probabilities_NEC[i, layer - 1] = softmax(logits_BC)[0]
            states[layer - 1].append(hidden_BTH[0])
    return probabilities_NEC, states


def _resume(classifier: Classifier, hidden_TH: Floats, after: int) -> Floats:
    """Return ``probabilities_EC`` of every exit after the layer ``after``."""
    mask_BT = np.ones((1, len(hidden_TH)), np.int32)
    hidden_BTH = np.ascontiguousarray(hidden_TH)[None]
    probabilities = []
    for layer in range(after + 1, classifier.layers.range.last + 1):
        hidden_BTH, logits_BC = classifier.layers.run_layer(layer, hidden_BTH, mask_BT)
        probabilities.append(softmax(logits_BC)[0])
    return np.stack(probabilities)


def _percent(right_N: NDArray[np.bool_]) -> float:
    return round(100 * float(right_N.mean()), 2)


def timing(classifier: Classifier, lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measure one layer and each codec (ms) for texts of the given ``lengths`` in tokens."""
    limits = _limits(classifier.bundle)
    word = classifier.encoder.encode("film")
    filler = int(word.ids_T[1])
    table = []
    for tokens in lengths:
        ids_T = np.full(tokens, filler)
        ids_T[[0, -1]] = word.ids_T[[0, -1]]
        row = EncodedText(ids_T, np.zeros_like(ids_T), np.ones(tokens, bool), truncated=False)
        hidden_BTH, mask_BT = classifier.embeddings.first_hidden([row])
        hidden_BTH, _ = classifier.layers.run_layer(1, hidden_BTH, mask_BT)
        line: dict[str, Any] = {
            "tokens": tokens,
            "layer_ms": _fastest_ms(partial(classifier.layers.run_layer, 2, hidden_BTH, mask_BT)),
        }
        for codec in CODECS:
            write = partial(encode, hidden_BTH[0], 1, limits.bundle_id, codec)
            body = write()
            line[codec] = {
                "bytes": len(body),
                "encode_ms": _fastest_ms(write),
                "decode_ms": _fastest_ms(partial(decode, body, limits)),
            }
        table.append(line)
    return table


def _fastest_ms(work: Callable[[], object]) -> float:
    """Return the time of the fastest of many runs, the one least disturbed by other load."""
    durations_s = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        durations_s.append(time.perf_counter() - started)
    return round(min(durations_s) * 1e3, 4)


def break_even(times: list[dict[str, Any]], layer: int) -> list[dict[str, Any]]:
    """Return, for each link and length, the time that a state after ``layer`` takes and saves.

    ``layer_ms_needed`` is the time of a layer at the next tier above which the state is faster:
    ``(8·bytes/bandwidth + encode + decode) / i``.
    """
    table = []
    for link in LINKS.values():
        for line in times:
            for codec in CODECS:
                facts = line[codec]
                costs = (facts["encode_ms"], facts["decode_ms"])
                sending_ms = uplink_ms(facts["bytes"], link.up_mbps)
                spared_ms = layer * line["layer_ms"]
                table.append(
                    {
                        "link": link.title,
                        "uplink_mbps": link.up_mbps,
                        "tokens": line["tokens"],
                        "codec": codec,
                        "layer": layer,
                        "sending_ms": round(sending_ms, 3),
                        "codec_ms": round(sum(costs), 3),
                        "spared_ms": round(spared_ms, 3),
                        "layer_ms_needed": round((sending_ms + sum(costs)) / layer, 3),
                        "resume": worth_resuming(
                            facts["bytes"], link.up_mbps, *costs, skipped_ms=spared_ms
                        ),
                    }
                )
    return table


def uplink_needed(times: list[dict[str, Any]], layers: int) -> list[dict[str, Any]]:
    """Return the uplink (megabits a second) from which a state is faster; None if never."""
    table = []
    for line in times:
        for layer in range(1, layers):
            row: dict[str, Any] = {"tokens": line["tokens"], "layer": layer}
            for codec in CODECS:
                facts = line[codec]
                available_ms = layer * line["layer_ms"] - facts["encode_ms"] - facts["decode_ms"]
                row[codec] = (
                    round(8 * facts["bytes"] / available_ms / 1e3, 1) if available_ms > 0 else None
                )
            table.append(row)
    return table


@click.command()
@click.option(
    "--bundle",
    type=PATH,
    default=default_bundle,
    help="Folder of the bundle; default: the shipped one.",
)
@click.option("--data", default="../shared/glue", show_default=True, help="Folder of GLUE tasks.")
@results_option
def main(bundle: Path, data: str, out: Path) -> None:
    """Measure, and write ``extra/resume.json`` and ``resume.md``."""
    try:
        loaded = load_bundle(bundle)
        task = task_of_bundle(loaded.manifest, loaded.path)
        examples = load_examples(str(Path(data) / task.name), task, "validation")
    except DimeeError as error:
        raise click.ClickException(error.message) from error
    classifier = Classifier(loaded, LayerRange(1, loaded.manifest.layers), threads=1)
    rows = [classifier.encoder.encode(row.text, row.pair) for row in examples]
    lengths = (round(float(np.median([row.tokens for row in rows]))), *LENGTHS)
    load = os.getloadavg()[0]
    times = timing(classifier, tuple(sorted(set(lengths))))
    manifest = loaded.manifest
    facts = {
        "task": task.name,
        "bundle_id": loaded.bundle_id,
        "encoder": manifest.encoder,
        "hidden_size": manifest.hidden_size,
        "layers": manifest.layers,
        "mobile_layers": manifest.mobile_layers,
        "examples": len(examples),
        "data_hash": data_hash(examples),
        "text_bytes": round(float(np.mean([len(row.text.encode()) for row in examples]))),
        "tokens": round(float(np.mean([row.tokens for row in rows])), 1),
        "median_tokens": lengths[0],
        "machine": {"cores": os.cpu_count(), "threads": 1, "load": round(load, 1), "runs": RUNS},
        "timing": times,
        "break_even": break_even(times, manifest.mobile_layers),
        "uplink_needed": uplink_needed(times, manifest.layers),
        "accuracy": accuracy(classifier, rows, np.array([row.label for row in examples])),
    }
    click.echo("written: {}, {}".format(*write_study("resume", facts, out)))


if __name__ == "__main__":
    main()
