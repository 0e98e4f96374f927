"""Which exits are worth having: runs that differ in their heads or losses, on validation.

``python -m lab.exits_study RUN…`` writes ``extra/exits.json`` and ``exits.md`` of the results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from lab.predict import accuracy_by_exit, predict
from lab.results.text import code, number, table
from lab.run import Run
from lab.temperature import calibration_error, fit_temperatures, negative_log_likelihood
from lab.train import filled
from shared.errors import DimeeError, InvalidInput

KEPT = ("task", "encoder", "split", "limit", "seed", "epochs", "batch_size", "learning_rate",
        "pooling", "head_hidden", "loss", "distil")  # fmt: skip
SAME = KEPT[:8]


def study(runs: list[Run]) -> dict[str, Any]:
    """Accuracy, likelihood and calibration by exit on each run's validation part.

    Raises `InvalidInput` for runs that differ in more than their exits.
    """
    first = filled(runs[0].facts)
    rows = []
    for run in runs:
        facts = filled(run.facts)
        for name in SAME:
            if facts[name] != first[name]:
                raise InvalidInput(f"runs: {run.folder} differs in {name}; compare exits only")
        validation = run.split().validation
        outputs = predict(run.model, run.tokenizer, validation, run.facts["max_tokens"])
        temperatures = fit_temperatures(outputs)
        log_ENC = np.log(np.clip(outputs.probabilities_ENC.astype(np.float64), 1e-12, 1))
        scaled = [
            np.exp(log_NC / t) / np.exp(log_NC / t).sum(-1, keepdims=True)
            for log_NC, t in zip(log_ENC, temperatures, strict=True)
        ]
        likelihood, error = negative_log_likelihood, calibration_error
        labels_N = outputs.labels_N
        rows.append(
            {
                **{name: facts[name] for name in KEPT[8:]},
                "accuracy": accuracy_by_exit(outputs),
                "temperature": [round(t, 3) for t in temperatures],
                "nll": [round(likelihood(part, labels_N, 1.0), 4) for part in log_ENC],
                "nll_tempered": [
                    round(likelihood(part, labels_N, t), 4)
                    for part, t in zip(log_ENC, temperatures, strict=True)
                ],
                "ece": [round(error(part, labels_N), 2) for part in outputs.probabilities_ENC],
                "ece_tempered": [round(error(part, labels_N), 2) for part in scaled],
            }
        )
    return {
        **{name: first[name] for name in SAME},
        "examples": runs[0].facts["examples"],
        "data_hash": runs[0].facts["data_hash"],
        "runs": rows,
    }


def page(facts: dict[str, Any]) -> str:
    """The page as markdown."""
    sizes = facts["examples"]
    exits = len(facts["runs"][0]["accuracy"])
    lines = [
        "# Exits worth having",
        "",
        f"What an exit may be made of, on {facts['task']} with `{facts['encoder']}`: each row is "
        f"one training of {facts['epochs']} epoch on {sizes['train']:,} texts "
        f"(`--limit {facts['limit']} --learning-rate {facts['learning_rate']:g} --batch-size "
        f"{facts['batch_size']} --seed {facts['seed']} --split {facts['split']}`) that differs in "
        f"one option only. Judged on {sizes['validation']:,} validation texts; the reported "
        "examples were not looked at. One seed each: differences below about "
        f"{number(_noise(facts), 1)} points are noise.",
        "",
        *code(["dimee train --task sst2 --data ../shared/glue/sst2 --split glue "
               "--limit 30000 --epochs 1 [option] --out runs/exits-NAME",
               "python -m lab.exits_study runs/exits-*"]),
        "",
        "## Accuracy by exit",
        "",
        *table(
            ["option", *(f"exit {i}" for i in range(1, exits + 1))],
            [[_name(row), *(number(value) for value in row["accuracy"])] for row in facts["runs"]],
        ),
        "",
        "## A temperature for each exit",
        "",
        "Expected calibration error in points, as trained → after its temperature; a temperature "
        "changes no answer. Fitted and read on the same validation texts: one number an exit.",
        "",
        *table(
            ["option", *(f"exit {i}" for i in range(1, exits + 1))],
            [
                [
                    _name(row),
                    *(
                        f"{number(before, 1)} → {number(after, 1)}"
                        for before, after in zip(row["ece"], row["ece_tempered"], strict=True)
                    ),
                ]
                for row in facts["runs"]
            ],
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _noise(facts: dict[str, Any]) -> float:
    """Twice the standard error of an accuracy near 85 %, in points."""
    return float(200 * np.sqrt(0.85 * 0.15 / facts["examples"]["validation"]))


def _name(row: dict[str, Any]) -> str:
    given = []
    if row["pooling"] != "mean":
        given.append(f"--pooling {row['pooling']}")
    if row["head_hidden"]:
        given.append(f"--head-hidden {row['head_hidden']}")
    if row["loss"] != "sum":
        given.append(f"--loss {row['loss']}")
    if row["distil"]:
        given.append(f"--distil {row['distil']:g}")
    return f"`{' '.join(given)}`" if given else "none: mean, linear, plain sum"


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results"))
def main(runs: tuple[Path, ...], out: Path) -> None:
    """Compare runs that differ in their exits only."""
    try:
        facts = study([Run(run) for run in runs])
    except DimeeError as error:
        raise click.ClickException(error.message) from error
    (out / "extra" / "exits.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (out / "exits.md").write_text(page(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
