"""The files of the how-to pages are those that the pages show, and they are valid."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from shared.bundle.loading import Bundle
from shared.policies import Outcome, PolicyFacts, TextFeatures, Tier, make_policy
from shared.policies.loading import GROUP
from shared.pricing.live_prices import LivePrices
from testbed.links.hops import make_hops
from testbed.links.schedule import read_schedule
from testbed.links.traces import read_trace
from testbed.load.arrivals import from_trace
from tests.support.example_policy import EXAMPLES, NAME, PATH
from tests.support.paths import BUNDLE, REPOSITORY

HOW_TO = REPOSITORY / "docs" / "how-to"
POLICY_PAGE = (HOW_TO / "write-a-policy.md").read_text(encoding="utf-8")
ANDROID_PAGE = (HOW_TO / "run-on-android-and-ios.md").read_text(encoding="utf-8")
OWN_PAGE = (HOW_TO / "bring-your-own-prices-links-and-arrivals.md").read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    return re.findall(r"^```\w+\n(.*?)^```", page, re.S | re.M)


@pytest.mark.parametrize(
    ("page", "file", "whole"),
    [
        (POLICY_PAGE, "length_and_margin.py", True),
        (OWN_PAGE, "prices.json", True),
        (OWN_PAGE, "own-link.txt", True),
        (OWN_PAGE, "tunnel.txt", True),
        (OWN_PAGE, "uplink.trace", False),
        (OWN_PAGE, "arrivals.txt", False),
    ],
)
def test_page_shows_the_file(page: str, file: str, whole: bool) -> None:
    text = (EXAMPLES / file).read_text(encoding="utf-8")
    assert f"(examples/{file})" in page
    found = [block for block in blocks(page) if text.startswith(block)]
    assert found
    if whole:
        assert text in found


def test_every_example_is_on_a_page() -> None:
    names = {file.name for file in EXAMPLES.iterdir() if file.is_file()}
    pages = POLICY_PAGE + OWN_PAGE + ANDROID_PAGE
    assert {name for name in names if name in pages} == names


def test_example_policy_has_about_thirty_lines_and_decides_as_described(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len((EXAMPLES / "length_and_margin.py").read_text().splitlines()) <= 32
    monkeypatch.syspath_prepend(str(EXAMPLES))
    policy = make_policy(PATH, PolicyFacts.of(bundle))
    embedding = np.zeros(bundle.manifest.hidden_size, np.float32)
    short, long = (TextFeatures(embedding, tokens) for tokens in (16, 17))
    assert policy.route(short).tier is Tier.MOBILE
    assert policy.route(long).tier is Tier.EDGE
    for tier, margin, target in (
        (Tier.MOBILE, 0.59, Tier.EDGE),
        (Tier.EDGE, 0.59, Tier.CLOUD),
        (Tier.EDGE, 0.6, None),
        (Tier.CLOUD, 0.1, None),
    ):
        outcome = Outcome(tier, 1, 0.5, 1.0, margin=margin)
        assert policy.escalate(short, policy.route(short), outcome, True) is target


def test_registration_on_the_page_is_that_of_the_example() -> None:
    (block,) = (block for block in blocks(POLICY_PAGE) if "entry-points" in block)
    group = tomllib.loads(block)["project"]["entry-points"][GROUP]
    assert group == {NAME: f"my_package.{PATH}"}


def test_price_book_link_traces_and_arrivals_are_valid(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = LivePrices(bundle.cost_model, EXAMPLES / "prices.json")
    assert (prices.book.version, prices.cost_model.cloud_fee) == ("own-2026", 9)
    link = read_schedule(f"@{EXAMPLES / 'own-link.txt'}").state_at(0).link
    assert link is not None
    assert (link.one_way_ms, link.up_mbps, link.loss) == (42, 6, 0.002)
    tunnel = read_schedule(f"@{EXAMPLES / 'tunnel.txt'}")
    assert [tunnel.state_at(second).spec for second in (0, 15.5, 17, 47)] == [
        *("4g", "stall", "3g", "3g")
    ]
    assert len(from_trace(EXAMPLES / "arrivals.txt", 3.0)[0]) == 30
    assert {
        read_trace(EXAMPLES / f"{name}.trace").period_ms for name in ("uplink", "downlink")
    } == {2_000}
    monkeypatch.chdir(EXAMPLES)
    options = re.findall(r"--link (mobile-[a-z]+=\S+)", OWN_PAGE.split("starting a testbed")[0])
    assert [hop.name for hop in make_hops(options)] == [
        *("mobile-edge", "mobile-cloud", "mobile-ledger")
    ]


def test_commands_of_the_pages_run_in_the_folder_of_the_examples() -> None:
    for page in (POLICY_PAGE, OWN_PAGE):
        assert "cd docs/how-to/examples\n" in page
        for file in re.findall(r"(?:--price-book|--arrivals) (\S+)", page):
            assert Path(EXAMPLES, file.strip("`,")).is_file() or file == "FILE", file


def test_page_shows_the_operators_of_the_shipped_bundle() -> None:
    script = str(EXAMPLES / "list_operators.py")
    done = subprocess.run(
        [sys.executable, script, str(BUNDLE)], capture_output=True, text=True, check=True
    )
    assert f"list_operators.py bundles/sst2-minilm\n{done.stdout}```" in ANDROID_PAGE
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert all(f"`{row[1]}`" in ANDROID_PAGE for row in rows if row[0] == "com.microsoft")
    assert sum(row[0] == "ai.onnx" for row in rows) == 20
    assert "Twenty operators are of ONNX's own opset 18." in ANDROID_PAGE
    assert done.stdout.startswith("opsets: ai.onnx 18, com.microsoft 1\n")
