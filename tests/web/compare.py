"""Compares answers of the mobile client in a browser with those of Python, text by text.

It writes a report and exits with 1 if a difference is not explained by rounding at a threshold::

    python -m tests.web.compare --texts ../shared/glue/sst2/validation.jsonl \\
        --report docs/benchmarks/2026-11-27-web-sst2.md

``--in node`` uses node in place of Chromium.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.inference.layers import meets_threshold
from shared.policies import make_known_policy
from tests.support.browser import chromium
from tests.support.paths import BUNDLE
from tests.web.compare_report import Comparison, Difference, report
from tests.web.runtimes import FOLDER, node, result_of, served, shipped, written
from tests.web.stable import VALUE
from tests.web.text_cases import MOBILE_LAYERS, classifier, facts_of, features_of

POLICIES = ("cascade-routing", "dimee-fixed")
TIMEOUT_S = 900.0
LARGEST_ROUNDING = 0.03
"""Largest difference of a confidence that rounding explains, as in the shared cases."""


@dataclass(frozen=True)
class Answer:
    """Python's answer to one text, in the form of ``compare.js``."""

    ids: list[int]
    tiers: list[str]
    closest: list[float]
    """Difference of the two best tiers' values, or of the two smallest distances, by policy."""
    exits: list[dict[str, int]]
    confidences: list[float]


def thresholds() -> list[float]:
    """Return the bundle's threshold, and that of its correctness heads."""
    facts = facts_of("bundle", {})
    heads = facts.heads
    return [facts.alpha] + ([] if heads is None else [float(heads.alpha)])


def python_answers(texts: list[str]) -> list[Answer]:
    """Return Python's answers."""
    facts = facts_of("bundle", {})
    policies = [make_known_policy(name, facts) for name in POLICIES]
    answers = []
    for text in texts:
        encoded = classifier().encoder.encode(text)
        decisions = [policy.route(features_of(encoded)) for policy in policies]
        layers = range(1, MOBILE_LAYERS + 1)
        exits = [classifier().classify([encoded], None, layer)[0] for layer in layers]
        taken = []
        for alpha in thresholds():
            reached = (one for one in exits if meets_threshold(one.confidence, alpha))
            answer = next(reached, exits[-1])
            taken.append({"label": answer.label_index, "exit_layer": answer.exit_layer})
        answers.append(
            Answer(
                encoded.ids_T.tolist(),
                [decision.tier.value for decision in decisions],
                [_closest(decision) for decision in decisions],
                taken,
                [one.confidence for one in exits],
            )
        )
    return answers


def _closest(decision: Any) -> float:
    values = [-value for value in decision.expected_values or () if value is not None]
    first, second = sorted(values or decision.distances)[:2]
    return float(second - first)


def browser_answers(texts: list[str], runtime: str) -> tuple[list[dict[str, Any]], str]:
    """Return the answers of Chromium or node, and the runtime with its version."""
    task = {"texts": texts, "policies": POLICIES, "alphas": thresholds()}
    bundle = shipped()
    if runtime == "node":
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [node(), "compare-node.js"],
                cwd=FOLDER,
                env={"DIMEE_TEST_BUNDLE": str(written(bundle, Path(folder)))},
                input=json.dumps(task),
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=True,
            )
        version = subprocess.check_output([node(), "--version"], text=True).strip()
        answers: list[dict[str, Any]] = json.loads(done.stdout)["answers"]
        return answers, f"node {version}"
    with (
        chromium() as browser,
        served({**bundle.files, "task.json": json.dumps(task).encode()}) as url,
    ):
        result = result_of(browser, f"{url}/tests/web/page.html?task", TIMEOUT_S)
        return result["answers"], f"Chromium {browser.version}"


def compare(texts: list[str], runtime: str) -> Comparison:
    """Return the comparison of all texts."""
    expected = python_answers(texts)
    found, version = browser_answers(texts, runtime)
    differences = [
        difference
        for number, (one, other) in enumerate(zip(expected, found, strict=True))
        for difference in differences_of(number, one, other)
    ]
    largest = max(
        abs(one - other)
        for answer, result in zip(expected, found, strict=True)
        for one, other in zip(answer.confidences, result["confidences"], strict=True)
    )
    return Comparison(
        texts=len(texts),
        runtime=version,
        machine=f"{platform.machine()}, {platform.system()}",
        thresholds=thresholds(),
        policies=list(POLICIES),
        differences=differences,
        largest_confidence_difference=largest,
        decision_ms=statistics.median(result["decision_ms"] for result in found),
        answer_ms=_at_tokens(found, 15, 25),
    )


def _at_tokens(found: list[dict[str, Any]], least: int, most: int) -> float:
    """Return the median of the answers' milliseconds for texts of about 20 tokens."""
    near = [one["answer_ms"] for one in found if least <= len(one["ids"]) <= most]
    return statistics.median(near or [one["answer_ms"] for one in found])


def differences_of(number: int, expected: Answer, found: dict[str, Any]) -> list[Difference]:
    """Return how JavaScript's answer to a text differs from Python's."""
    differences = []
    if found["ids"] != expected.ids:
        differences.append(Difference(number, "tokens", "", "", None))
    for policy, tier, other, closest in zip(
        POLICIES, expected.tiers, found["tiers"], expected.closest, strict=True
    ):
        if tier != other:
            why = f"the two best values differ by {closest:.2g}" if closest < VALUE else None
            differences.append(Difference(number, f"tier of {policy}", tier, other, why))
    confidences = list(zip(expected.confidences, found["confidences"], strict=True))
    for alpha, exit_, other_exit in zip(thresholds(), expected.exits, found["exits"], strict=True):
        if exit_ == other_exit:
            continue
        shown = [f"{one['label']} at exit {one['exit_layer']}" for one in (exit_, other_exit)]
        why = _explained(alpha, exit_, other_exit, confidences)
        differences.append(Difference(number, f"answer at α = {alpha:.4g}", *shown, why))
    return differences


def _explained(
    alpha: float,
    expected: dict[str, int],
    found: dict[str, int],
    confidences: list[tuple[float, float]],
) -> str | None:
    """Return why rounding leads to another exit or label; None if it does not.

    At the earlier of two exits, α lies between the two confidences. Another label at the same exit
    of a bundle with two labels has a confidence of about a half.
    """
    layer = min(expected["exit_layer"], found["exit_layer"])
    one, other = confidences[layer - 1]
    if abs(one - other) > LARGEST_ROUNDING:
        return None
    if expected["exit_layer"] != found["exit_layer"]:
        between = bool(meets_threshold(one, alpha)) != bool(meets_threshold(other, alpha))
        reason = f"exit {layer}: {one:.6f} in Python, {other:.6f} in JavaScript; α = {alpha:.6f}"
        return reason if between else None
    if max(one, other) <= 0.5 + LARGEST_ROUNDING:
        return (
            f"exit {layer}: {one:.6f} in Python, {other:.6f} in JavaScript; the labels tie at 0.5"
        )
    return None


def main() -> None:
    """Run the comparison and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines with 'sentence'")
    parser.add_argument("--report", type=Path, help="Markdown file; default: print it")
    parser.add_argument("--in", dest="runtime", choices=("chromium", "node"), default="chromium")
    given = parser.parse_args()
    lines = given.texts.read_text(encoding="utf-8").splitlines()
    result = compare([json.loads(line)["sentence"] for line in lines], given.runtime)
    text = report(result, given.texts.name, BUNDLE.name)
    if given.report is None:
        print(text)
    else:
        given.report.write_text(text, encoding="utf-8")
    unexplained = [one for one in result.differences if one.explanation is None]
    print(f"{len(result.differences)} differences, {len(unexplained)} not explained")
    sys.exit(1 if unexplained else 0)


if __name__ == "__main__":
    main()
