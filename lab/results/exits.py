"""Why a saving is large or small: what the first exits know."""

from __future__ import annotations

from lab.results.load import Result
from lab.results.text import NOT_RUN, number, table

ONE_ANSWER = 0.98


def silent_exits(result: Result) -> list[int]:
    """The exits (1-based) that give nearly every example the same answer."""
    shares = result["exits"]["largest_answer_share"]
    return [exit_ for exit_, share in enumerate(shares, start=1) if share >= ONE_ANSWER]


def exits_section(results: list[Result]) -> list[str]:
    """Accuracy by depth, α and the pools, a line for each run."""
    lines = [
        "## Why: what the first exits know",
        "",
        "Nothing can be saved without loss where the exits of phone and edge know little: then α "
        "is high, and the pool of the hard takes nearly all.",
        f"An exit is silent if at least {number(100 * ONE_ANSWER, 0)} % of its answers are one "
        "class.",
        "",
    ]
    if not results:
        return [*lines, f"{NOT_RUN}."]
    header = ["run", "split", "commonest class (%)", "accuracy at m", "at n", "at l",
              "silent exits", "α", "easy / moderate / hard"]  # fmt: skip
    return lines + table(header, [_row(result) for result in results], left=2)


def _row(result: Result) -> list[str]:
    accuracy = result["exits"]["accuracy"]
    depths = (result["m"], result["n"], result["layers"])
    silent = ", ".join(str(exit_) for exit_ in silent_exits(result))
    return [
        f"{result.task_title}, {result.encoder_title}",
        result.on,
        number(result["majority"]),
        *(number(accuracy[depth - 1]) for depth in depths),
        silent or "none",
        number(result["alpha"]),
        " / ".join(f"{count:,}" for count in result["pools"].values()),
    ]
