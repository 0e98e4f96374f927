"""Speed of the app in headless Chromium: ``python -m testbed.bench.web_app``.

It needs Debian's Chromium and the extra ``test``. `tests.web.compare` compares the answers with
Python's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from shared.program import run_program
from testbed.load.target import start_testbed

CHROMIUM = Path("/usr/bin/chromium")
VISITS = 7
ANSWERS = 300
POLICIES = ("mobile", "cascade-routing", "dimee-fixed")
TWENTY_TOKENS = (
    "a gripping and often funny film that never loses sight of the people at its centre , ever"
)
FREE_WAITING = {"DIMEE_LATENCY_PRICE_LAMBDA": "0"}
WAIT_MS = 120_000.0
CLASSIFY_AT_ONCE = """
(() => {
  const watch = new MutationObserver(() => {
    const form = document.getElementById("classify-form");
    const label = document.getElementById("answer-label");
    if (label) { window.answeredMs = performance.now(); watch.disconnect(); return; }
    if (!form || form.hidden || window.readyMs) return;
    window.readyMs = performance.now();
    document.getElementById("text").value = "a gripping, funny film";
    document.getElementById("policy").value = "mobile";
    form.requestSubmit();
  });
  watch.observe(document, { subtree: true, childList: true, attributes: true });
})();
"""
"""Classifies a text as soon as the app is ready, and notes both times since the navigation."""
ANSWER_MANY = """
async ([text, policy, count]) => {
  const { MobileClient } = await import("/app/js/client/client.js");
  const client = new MobileClient();
  await client.start();
  const rows = [];
  for (let i = 0; i < count + 20; i += 1) {
    const { totalMs, decisionMs, tokens } = await client.classify(text, null, { policy });
    rows.push({ totalMs, decisionMs, tokens });
  }
  await client.close();
  return rows.slice(20);
}
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


def visit(context: BrowserContext, url: str) -> tuple[Page, dict[str, float]]:
    """Open the app and classify a text at once; return the page and its times in ms."""
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.add_init_script(CLASSIFY_AT_ONCE)
    page.goto(f"{url}/app/")
    page.locator("#answer-label").wait_for()
    return page, page.evaluate("({ readyMs: window.readyMs, answeredMs: window.answeredMs })")


def visits(browser: Browser, url: str, count: int = VISITS) -> dict[str, list[float]]:
    """Return the ms until the first local answer, of first visits and of later ones offline."""
    figures: dict[str, list[float]] = {"first_visit_ms": [], "offline_visit_ms": []}
    for _ in range(count):
        context = browser.new_context()
        page, times = visit(context, url)
        figures["first_visit_ms"].append(times["answeredMs"])
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        page.close()
        context.set_offline(True)
        _, times = visit(context, url)
        figures["offline_visit_ms"].append(times["answeredMs"])
        context.close()
    return figures


def answers(browser: Browser, url: str, policy: str, count: int = ANSWERS) -> dict[str, Any]:
    """Return percentiles of ``count`` texts of 20 tokens."""
    context = browser.new_context()
    page, _ = visit(context, url)
    rows = page.evaluate(ANSWER_MANY, [TWENTY_TOKENS, policy, count])
    context.close()
    return {
        "policy": policy,
        "tokens": rows[0]["tokens"],
        "answers": len(rows),
        "total_ms": percentiles([row["totalMs"] for row in rows]),
        "decision_ms": percentiles([row["decisionMs"] for row in rows]),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": statistics.median(values), "p95": cuts[94], "p99": cuts[98]}


def main() -> None:
    """Start a testbed and Chromium, and print each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=VISITS, help="Number of visits of each kind.")
    parser.add_argument("--answers", type=int, default=ANSWERS, help="Number of texts a policy.")
    parser.add_argument("--out", type=Path, help="JSON file to write.")
    options = parser.parse_args()
    report: dict[str, Any] = {"cores": os.cpu_count()}
    with start_testbed({}, 1, settings=FREE_WAITING) as target, chromium() as browser:
        report["chromium"] = browser.version
        report |= visits(browser, target.url, options.visits)
        report["answers"] = [
            answers(browser, target.url, policy, options.answers) for policy in POLICIES
        ]
    for name in ("first_visit_ms", "offline_visit_ms"):
        values, middle = report[name], statistics.median(report[name])
        print(f"{name}: {middle:.0f} (min {min(values):.0f}, max {max(values):.0f})")
    for row in report["answers"]:
        print(json.dumps(row))
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    run_program(main)
