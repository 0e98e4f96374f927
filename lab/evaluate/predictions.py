"""File of predictions of ``dimee evaluate``: a row for each text and policy."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lab.evaluate.methods import EvaluationData, traces
from shared.errors import InvalidInput

COLUMNS = (
    "row", "policy", "run", "label", "answer", "right", "confidence", "tier", "exit_layer",
    "cost_lambda", "attempts",
)  # fmt: skip
"""``row`` counts the texts of the reported part from 0. ``run`` counts the runs of a policy from 0:
there are several if chance or the order of the texts matters."""
SUFFIXES = (".csv", ".jsonl", ".parquet")


def check_suffix(file: Path) -> None:
    """Raise `InvalidInput` if the file's suffix is not one of `SUFFIXES`."""
    if file.suffix not in SUFFIXES:
        raise InvalidInput(
            f"--predictions: {file.name} does not end in {', '.join(SUFFIXES[:-1])} or "
            f"{SUFFIXES[-1]}"
        )


def write_predictions(
    file: Path, data: EvaluationData, policies: Sequence[str], labels: Sequence[str]
) -> None:
    """Write the answers of the policies to the reported texts, in the format of the suffix.

    The file holds `COLUMNS` and no text. It replaces an existing one once it is complete.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(file.suffix + ".part")
    rows = _rows(data, policies, labels)
    if file.suffix == ".parquet":
        _write_parquet(part, rows)
    else:
        with part.open("w", encoding="utf-8", newline="") as stream:
            if file.suffix == ".csv":
                writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            else:
                stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    part.replace(file)


def _rows(
    data: EvaluationData, policies: Sequence[str], labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    test = data.test
    for policy in policies:
        for run, trace in enumerate(traces(policy, data)):
            for row, label in enumerate(test.labels_N.tolist()):
                answer, exit_layer = int(trace.answer_N[row]), int(trace.exit_N[row])
                values = (
                    row, policy, run, labels[label], labels[answer], answer == label,
                    round(float(test.probabilities_NEC[row, exit_layer - 1].max()), 6),
                    trace.tier_N[row].value, exit_layer, round(float(trace.cost_N[row]), 6),
                    int(trace.attempts_N[row]),
                )  # fmt: skip
                yield dict(zip(COLUMNS, values, strict=True))


def _write_parquet(file: Path, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
