"""Comparison of two load reports: ``dimee load --compare A.json B.json``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shared.documents import parse_document
from shared.errors import InvalidInput
from shared.files import read_limited
from testbed.load.sample import ENDINGS, TIERS

MAX_REPORT_BYTES = 16 * 1024 * 1024
MAX_NAME = 300
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e300, le=1e300)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Text = Annotated[str, Field(max_length=100_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Machine(_Part):
    """The machine of a run. ``load_before`` is its load average before the run."""

    cpu: Text = "unknown"
    cores: Count
    system: Text
    python: Text
    load_before: Finite


class Link(_Part):
    """An emulated link of a run."""

    hop: Text
    spec: Text


class Cost(_Part):
    """Cost of the answered requests of a run."""

    lambda_: Finite = Field(alias="lambda")
    against_all_cloud: Finite | None
    usd: Finite


class Accuracy(_Part):
    """Share of right answers to labelled texts."""

    share: Finite


class Bin(_Part):
    """Latency percentiles of a part of a run."""

    from_s: Finite
    until_s: Finite
    p50: Finite | None
    p95: Finite | None
    p99: Finite | None


class RunReport(_Part):
    """The parts of a load report that are compared."""

    format: Annotated[int, Field(ge=3, le=3)]
    scenario: Text
    scenario_title: Text
    path: Text
    policy: Text | None = None
    rate: Finite
    duration_s: Finite
    deadline_ms: Finite
    seed: int
    price_book: Text | None = None
    trace: Text | None = None
    texts_sha256: Text | None = None
    bundle_id: Text | None = None
    links: list[Link] = []
    machine: Machine
    made_at: Text
    commit: Text
    command: Text = ""
    partial: dict[str, Any] | None = None
    requests: Count
    answered: Count
    not_from_chosen_tier: Count
    endings: dict[str, Count]
    latency_ms: dict[str, Finite] | None
    sent_late_ms: dict[str, Finite] | None
    answered_by: dict[str, Count]
    accuracy: Accuracy | None
    failed_over: Count
    escalated: Count
    degraded: Count
    hops_ms: dict[str, dict[str, Finite]]
    cost: Cost
    over_time: Annotated[list[Bin], Field(max_length=1_000)]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both runs; None where a run has none. ``unit`` formats the figures."""

    name: str
    first: float | None
    second: float | None
    unit: str = ""

    def cells(self) -> tuple[str, str, str, str]:
        """Return name, both figures, and the change from the first to the second."""
        return (
            self.name,
            _figure(self.first, self.unit),
            _figure(self.second, self.unit),
            self.change,
        )

    @property
    def change(self) -> str:
        """The change from the first figure to the second: points for shares, else percent."""
        if self.first is None or self.second is None:
            return "–"
        difference = self.second - self.first
        if not difference:
            return "same"
        if self.unit == "%":
            return f"{100 * difference:+.2f} points" if math.isfinite(100 * difference) else "–"
        if not self.first or not math.isfinite(difference / self.first):
            return "–"
        return f"{difference / self.first:+.1%}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs, their figures, and whether the same load was sent under the same conditions.

    ``differences`` are conditions that differ, which make the runs not comparable. ``compared`` are
    what may differ on purpose, such as policy and commit.
    """

    names: tuple[str, str]
    runs: tuple[RunReport, RunReport]
    differences: list[str]
    compared: list[str]
    rows: list[Row]

    @property
    def verdict(self) -> str:
        """One sentence on whether the runs can be compared."""
        if self.differences:
            return f"not comparable: {'; '.join(self.differences)}"
        return "comparable: same scenario, rate, deadline, seed, texts, bundle, machine and links"


def read_report(file: Path) -> RunReport:
    """Return a report; raises `InvalidInput` if ``file`` is none."""
    try:
        return parse_document(read_limited(file, MAX_REPORT_BYTES), RunReport)
    except OSError as error:
        raise InvalidInput(f"compare: {file} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InvalidInput(
            f"compare: {file} is no report of dimee load of this version ({error}); give the JSON "
            "file that a run wrote"
        ) from None


def compare(first: Path, second: Path) -> Comparison:
    """Return the comparison of two report files; raises `InvalidInput` for another file."""
    runs = read_report(first), read_report(second)
    return Comparison(
        names=_names(first, second),
        runs=runs,
        differences=list(_differing(runs, _CONDITIONS)) + list(_unfinished(runs)),
        compared=list(_differing(runs, _COMPARED)),
        rows=list(_rows(*runs)),
    )


def lines(comparison: Comparison) -> list[str]:
    """Return the comparison as a table for a terminal."""
    first, second = comparison.names
    cells = [("", first, second, "change"), *(row.cells() for row in comparison.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    table = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return [comparison.verdict, *(f"also: {one}" for one in comparison.compared), "", *table]


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Return the names of the files without their ending; with folders where they are equal."""
    names = first.stem[:40], second.stem[:40]
    if names[0] != names[1]:
        return names
    return f"A: {names[0]}", f"B: {names[1]}"


def _machine(run: RunReport) -> str:
    machine = run.machine
    return f"{machine.cpu}, {machine.cores} cores, {machine.system}, Python {machine.python}"


def _links(run: RunReport) -> str:
    return ", ".join(sorted(f"{link.hop}={link.spec}" for link in run.links)) or "none"


Fact = Callable[[RunReport], object]
_CONDITIONS: dict[str, Fact] = {
    "scenario": lambda run: f"{run.scenario} ({run.scenario_title})",
    "file of arrivals": lambda run: run.trace,
    "rate": lambda run: f"{run.rate:g}/s",
    "duration": lambda run: f"{run.duration_s:g} s",
    "deadline": lambda run: f"{run.deadline_ms:g} ms",
    "seed": lambda run: run.seed,
    "texts": lambda run: run.texts_sha256 and run.texts_sha256[:16],
    "bundle": lambda run: run.bundle_id,
    "machine": _machine,
    "links": _links,
}
_COMPARED: dict[str, Fact] = {
    "path": lambda run: run.path,
    "policy": lambda run: run.policy,
    "price book": lambda run: run.price_book,
    "commit": lambda run: run.commit,
    "load average before": lambda run: f"{run.machine.load_before:.1f}",
}


def _differing(runs: tuple[RunReport, RunReport], facts: dict[str, Fact]) -> Iterator[str]:
    for name, fact in facts.items():
        first, second = (str(fact(run))[:MAX_NAME] for run in runs)
        if first != second:
            verb = "differ" if name.endswith("s") else "differs"
            yield f"the {name} {verb} ({first} and {second})"


def _unfinished(runs: tuple[RunReport, RunReport]) -> Iterator[str]:
    for number, run in zip(("first", "second"), runs, strict=True):
        if run.partial is not None:
            yield f"the {number} run was ended early"


def _rows(first: RunReport, second: RunReport) -> Iterator[Row]:
    def row(name: str, figure: Callable[[RunReport], float | None], unit: str = "") -> Row:
        return Row(name, figure(first), figure(second), unit)

    yield row("requests", lambda run: run.requests)
    yield row("answered", lambda run: _share(run.answered, run.requests), "%")
    for ending in ENDINGS[1:]:
        if ending in first.endings or ending in second.endings:
            name = ending.replace("_", " ")
            yield row(name, lambda run, ending=ending: run.endings.get(ending, 0))  # type: ignore[misc]
    for name in ("p50", "p90", "p95", "p99", "max", "mean"):
        yield row(f"latency {name}", lambda run, name=name: _of(run.latency_ms, name), "ms")  # type: ignore[misc]
    yield row("sent late p99", lambda run: _of(run.sent_late_ms, "p99"), "ms")
    yield row("accuracy", lambda run: run.accuracy.share if run.accuracy else None, "%")
    for tier in TIERS:
        yield row(
            f"answered by {tier}",
            lambda run, tier=tier: _share(run.answered_by.get(tier, 0), run.answered),  # type: ignore[misc]
            "%",
        )
    yield row("not from the chosen tier", lambda run: run.not_from_chosen_tier)
    yield row("failed over", lambda run: run.failed_over)
    yield row("escalated", lambda run: run.escalated)
    yield row("degraded", lambda run: run.degraded)
    yield row("cost of an answer", lambda run: _share(run.cost.lambda_, run.answered), "λ")
    yield row("cost against all-cloud", lambda run: run.cost.against_all_cloud, "%")
    yield row("cost of 1,000 answers", lambda run: _share(1e3 * run.cost.usd, run.answered), "USD")


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _of(figures: dict[str, float] | None, name: str) -> float | None:
    return None if figures is None else figures.get(name)


def _figure(value: float | None, unit: str) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) >= 1e12:
        return f"{value:.3e}"
    if unit == "%":
        return f"{value:.2%}"
    if unit == "USD":
        return f"{value:.6f} USD"
    return f"{value:,.2f} {unit}" if unit else f"{value:,.0f}"
