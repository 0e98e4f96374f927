"""Accuracy of the answers to labelled texts, with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from testbed.load.sample import Sample

Z = 1.959964
"""Quantile of the normal distribution of a two-sided 95 % interval."""


def accuracy_of(samples: Sequence[Sample]) -> dict[str, Any] | None:
    """Return the share of right answers and its 95 % interval (Wilson); None without labels.

    ``texts`` counts different texts, on which the interval is based: several answers to one text
    are not independent of each other.
    """
    judged = [sample for sample in samples if sample.correct is not None]
    if not judged:
        return None
    share = sum(sample.correct is True for sample in judged) / len(judged)
    texts = len({sample.text for sample in judged})
    low, high = wilson_interval(share, texts)
    return {"share": share, "low": low, "high": high, "texts": texts, "answers": len(judged)}


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``count`` trials (Wilson's score interval)."""
    squared = Z * Z / count
    centre = (share + squared / 2) / (1 + squared)
    half = Z / (1 + squared) * math.sqrt(share * (1 - share) / count + squared / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def describe_accuracy(accuracy: dict[str, Any]) -> str:
    """Return share and interval in percent: ``91.7 % (87.0 to 94.8 %)``."""
    share, low, high = (100 * accuracy[name] for name in ("share", "low", "high"))
    return f"{share:.1f} % ({low:.1f} to {high:.1f} %)"


def accuracy_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the accuracy of a report of labelled texts as lines, in all and by tier."""
    total = report["accuracy"]
    lines = [
        f"accuracy {describe_accuracy(total)}, 95 % interval of {total['texts']:,} texts",
        f"  {'tier':<8}{'answers':>8}{'texts':>7}  {'accuracy, %':<22}{'p50 ms':>9}{'p95 ms':>9}"
        f"{'λ/request':>11}",
    ]
    for tier, figures in report["tiers"].items():
        if figures is None:
            continue
        accuracy, latency = figures["accuracy"], figures["latency_ms"]
        texts = f"{accuracy['texts']:,}" if accuracy else "–"
        lines.append(
            f"  {tier:<8}{figures['answered']:>8,}{texts:>7}  "
            f"{describe_accuracy(accuracy) if accuracy else '–':<22}"
            f"{latency['p50']:>9.1f}{latency['p95']:>9.1f}{figures['cost_lambda']:>11.2f}"
        )
    return lines
