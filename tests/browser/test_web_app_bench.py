"""The benchmark of the app measures what its page says."""

from __future__ import annotations

from playwright.sync_api import Browser

from testbed.bench.web_app import answers, visits
from testbed.load.target import LoadTarget


def test_benchmark_measures_visits_and_answers(browser: Browser, target: LoadTarget) -> None:
    figures = visits(browser, target.url, 1)
    assert {name: len(values) for name, values in figures.items()} == {
        "first_visit_ms": 1,
        "offline_visit_ms": 1,
    }
    assert all(values[0] > 0 for values in figures.values())
    row = answers(browser, target.url, "cascade-routing", 3)
    assert (row["tokens"], row["answers"]) == (20, 3)
    assert 0 < row["decision_ms"]["p50"] < row["total_ms"]["p50"]
