"""Accuracy by depth: why a saving is large or small."""

from __future__ import annotations

from lab.reports.load import Result
from lab.reports.text import NOT_RUN, number, table

ONE_ANSWER = 0.98


def constant_exits(result: Result) -> list[int]:
    """The exits (1-based) that give nearly every example the same answer."""
    shares = result["exits"]["largest_answer_share"]
    return [exit_ for exit_, share in enumerate(shares, start=1) if share >= ONE_ANSWER]


def exits_section(results: list[Result]) -> list[str]:
    """Accuracy by depth, α and the pools, a line for each run."""
    lines = [
        "## Accuracy by depth, α and the pools",
        "",
        "Little can be saved without loss where the exits of the mobile and the edge are not "
        "accurate: α is then high, and most texts fall in the hard pool.",
        f"An exit is constant if at least {number(100 * ONE_ANSWER, 0)} % of its answers are one "
        "class.",
        "",
    ]
    if not results:
        return [*lines, f"{NOT_RUN}."]
    header = ["run", "report", "most frequent class (%)", "accuracy at m", "at n", "at l",
              "constant exits", "α", "easy / moderate / hard"]  # fmt: skip
    return lines + table(header, [_row(result) for result in results], left=2)


def _row(result: Result) -> list[str]:
    accuracy = result["exits"]["accuracy"]
    depths = (result["m"], result["n"], result["layers"])
    constant = ", ".join(str(exit_) for exit_ in constant_exits(result))
    return [
        result.run_title,
        f"`{result.on}`",
        number(result["majority"]),
        *(number(accuracy[depth - 1]) for depth in depths),
        constant or "none",
        number(result["alpha"]),
        " / ".join(f"{count:,}" for count in result["pools"].values()),
    ]
