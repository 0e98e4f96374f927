"""``docs/results/exits.md`` from its JSON: trainings that differ in their exits."""

from __future__ import annotations

from typing import Any

import numpy as np

from lab.reports.text import code, number, table


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
               "python -m lab.studies.exits runs/exits-*"]),
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
