"""The report of a comparison of the mobile client in a browser with Python."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One difference at text ``number``; without an ``explanation`` it is none of rounding."""

    number: int
    what: str
    expected: str
    found: str
    explanation: str | None


@dataclass(frozen=True)
class Comparison:
    """Result for all texts; milliseconds are medians."""

    texts: int
    runtime: str
    machine: str
    thresholds: list[float]
    policies: list[str]
    differences: list[Difference]
    largest_confidence_difference: float
    decision_ms: float
    answer_ms: float


def report(result: Comparison, file: str, bundle: str) -> str:
    """Return the report as Markdown."""
    unexplained = sum(one.explanation is None for one in result.differences)
    thresholds = " and ".join(f"{alpha:.6g}" for alpha in result.thresholds)
    per_threshold = result.texts * len(result.thresholds)
    lines = [
        f"# The mobile client in a browser and in Python: {result.texts} texts",
        "",
        f"Each text of `{file}` was answered by the bundle `{bundle}` in Python (onnxruntime) and "
        f"in {result.runtime} (onnxruntime-web, one thread, {result.machine}). Compared were the "
        f"tokens, the tier that {' and '.join(result.policies)} choose, and the label and the exit "
        f"of the mobile's own layers at the thresholds α = {thresholds}.",
        "",
        "| | |",
        "|---|---|",
        f"| texts | {result.texts} |",
        f"| answers compared | {per_threshold} |",
        f"| differences | {len(result.differences)} |",
        f"| differences that rounding does not explain | {unexplained} |",
        f"| largest difference of a confidence | {result.largest_confidence_difference:.4f} |",
        f"| median decision: tokens, features, policy | {result.decision_ms:.2f} ms |",
        f"| median local answer, 15 to 25 tokens, both layers | {result.answer_ms:.1f} ms |",
        "",
    ]
    if result.differences:
        lines += [
            "The 8-bit activations are rounded by the scale of a row, which the two runtimes "
            "compute in another order; a confidence close to a threshold may therefore fall on "
            "its other side.",
            "",
            "| text (line) | what | Python | JavaScript | explanation |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {one.number + 1} | {one.what} | {one.expected} | {one.found} | "
            f"{one.explanation or '**none**'} |"
            for one in result.differences
        ]
        lines.append("")
    lines += [
        "The command that wrote this report, which exits with 1 if a difference is not explained:",
        "",
        "```",
        f"python -m tests.web.compare --texts ../shared/glue/sst2/{file} --report REPORT",
        "```",
        "",
    ]
    return "\n".join(lines)
