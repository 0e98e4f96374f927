"""The app in Firefox and in WebKitGTK, Safari's engine, where they are installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.domain import Tier
from shared.ledger.client import LedgerClient
from testbed.load.target import LoadTarget
from tests.support.engines import Engine, firefox, webkit
from tests.support.web_app import NOTHING_WAITS, TEXT, ShownRequest, final, ledger_verify, recorded

pytestmark = pytest.mark.skipif(
    "BROWSER_ENGINES" not in os.environ,
    reason="Firefox and WebKit run on request: set BROWSER_ENGINES=1",
)
UNTIL = """const until = async (found) => {
    while (!found()) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  const by = (id) => document.getElementById(id);"""
CLASSIFY = f"""async (text, policy) => {{
  {UNTIL}
  await until(() => by("classify-form")?.hidden === false);
  const before = by("history").children.length;
  by("text").value = text;
  by("policy").value = policy;
  by("deadline").value = "60000";
  by("classify-form").requestSubmit();
  await until(() => by("history").children.length > before);
  const newest = by("history").firstElementChild;
  return [newest.dataset.request, Number(newest.dataset.attempts),
    newest.querySelector(".tier")?.textContent ?? null, newest.textContent];
}}"""
TAKEN_OVER = f"""async () => {{
  {UNTIL}
  await navigator.serviceWorker.ready;
  await until(() => navigator.serviceWorker.controller !== null);
  return [crossOriginIsolated, document.documentElement.scrollWidth <= innerWidth];
}}"""


@pytest.fixture(scope="module")
def target(own_target: LoadTarget) -> LoadTarget:
    """The testbed of these tests alone."""
    return own_target


@pytest.mark.parametrize("engine", [firefox, webkit])
def test_every_tier_answers_before_and_after_the_service_worker_takes_over(
    engine: Engine, target: LoadTarget, ledger: LedgerClient, tmp_path: Path
) -> None:
    made: list[ShownRequest] = []
    with engine(tmp_path) as (open_page, call):
        for _ in range(2):
            open_page(f"{target.url}/app/")
            made.append(ShownRequest(*call(CLASSIFY, TEXT, "mobile")))
            assert call(TAKEN_OVER) == [True, True]
            made += [ShownRequest(*call(CLASSIFY, TEXT, tier.value)) for tier in Tier]
        while not call(NOTHING_WAITS):
            pass
    assert [request.tier for request in made] == ["mobile", *Tier] * 2
    for request in made:
        assert final(recorded(ledger, request)).tier.value == request.tier
    assert "consistent" in ledger_verify(target.ledger_url)
