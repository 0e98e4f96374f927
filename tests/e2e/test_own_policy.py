"""The example policy runs in the client, in every command that takes a policy, and in evaluate."""

from __future__ import annotations

import csv
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mobile_client import Classification, MobileClient, MobileSettings, RequestOptions
from shared.domain import margin_of
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from testbed.processes.processes import Testbed
from testbed.texts import sample_sentences
from tests.support.commands import dimee, dimee_up
from tests.support.example_policy import EXAMPLES, NAME, PATH
from tests.support.paths import BUNDLE, REPOSITORY

TEXTS = sample_sentences()
OUTPUTS = REPOSITORY.parent / "shared" / "outputs" / "mrpc-minilm"
SHORT, MARGIN = 16, 0.6
NEXT = {"mobile": "edge", "edge": "cloud"}


def in_examples(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder of the example, which is not in Python's path."""
    values: dict[str, Any] = {**settings}
    return dimee(*arguments, folder=EXAMPLES, **values)


def addresses(testbed: Testbed, folder: Path) -> dict[str, str]:
    urls = {f"{name}_url": role.url for name, role in testbed.roles.items()}
    return urls | {"state_dir": str(folder), "bundle": str(BUNDLE)}


def assert_follows_the_policy(answer: Classification) -> None:
    first, *others = answer.attempts
    assert first.tier == ("mobile" if answer.tokens <= SHORT else "edge")
    assert answer.policy == NAME
    for before, attempt in zip(answer.attempts, others, strict=False):
        assert (attempt.tier, attempt.reason) == (NEXT[before.tier], "escalate")
    if answer.tier != "cloud":
        assert margin_of(list(answer.probabilities.values())) >= MARGIN


def test_object_runs_in_the_client_with_real_tiers(
    testbed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from length_and_margin import LengthAndMargin

    ledger = LedgerClient(testbed.roles["ledger"].url)
    before = ledger.verify().requests
    urls = {f"{name}_url": testbed.roles[name].url for name in ("edge", "cloud", "ledger")}
    settings = MobileSettings(bundle=BUNDLE, state_dir=tmp_path, **urls)
    with MobileClient(settings, policy=LengthAndMargin()) as mobile:
        answers = mobile.classify_many(TEXTS)
        other = LengthAndMargin(short=3)
        other.name = "very-short"
        elsewhere = mobile.classify(TEXTS[0], options=RequestOptions(policy=other))
        mobile.close(flush_s=30)
    for answer in answers:
        assert isinstance(answer, Classification)
        assert_follows_the_policy(answer)
    assert {attempt.tier.value for one in answers for attempt in one.attempts} == {
        *("mobile", "edge", "cloud")
    }
    assert (elsewhere.policy, elsewhere.attempts[0].tier.value) == ("very-short", "edge")
    report = wait_for_consistent(ledger, wait_s=60, requests=before + len(TEXTS) + 1)
    assert report.consistent, report
    by_policy = ledger.summary().requests_by_policy
    assert by_policy[NAME] >= len(TEXTS)
    assert by_policy["very-short"] == 1


def test_classify_takes_the_path_as_option_and_from_the_environment(
    testbed: Testbed, tmp_path: Path
) -> None:
    settings = addresses(testbed, tmp_path)
    by_option = in_examples("classify", "--policy", PATH, "--json", *TEXTS[:10], **settings)
    from_environment = in_examples("classify", "--json", *TEXTS[:10], **settings, policy=PATH)
    for done in (by_option, from_environment):
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)
        assert [row.pop("index") for row in rows] == list(range(10))
        answers = [Classification.model_validate(row, strict=False) for row in rows]
        assert len(answers) == 10
        for answer in answers:
            assert_follows_the_policy(answer)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("length_and_margin:Missing", "the module 'length_and_margin' has no class 'Missing'"),
        ("length_and_margins:X", "there is no module 'length_and_margins' in "),
        ("length_and_margin", "'length_and_margin' is not known; choose one of"),
    ],
)
@pytest.mark.parametrize("command", [("classify", "fine"), ("up",), ("demo",)])
def test_wrong_path_is_one_sentence_before_anything_starts(
    command: tuple[str, ...], path: str, says: str, tmp_path: Path
) -> None:
    settings = {"state_dir": str(tmp_path), "bundle": str(BUNDLE)}
    done = in_examples(*command, "--policy", path, **settings)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"dimee: policy: {says}") or f": {says}" in line


@pytest.mark.long
def test_load_runs_with_own_policy_prices_links_and_arrivals(tmp_path: Path) -> None:
    """The files of the how-to pages, in one run."""
    done = in_examples(
        *("load", "--policy", PATH, "--price-book", "prices.json", "--arrivals", "arrivals.txt"),
        *("--link", "mobile-edge=4g,up=uplink.trace,down=downlink.trace"),
        *("--link", "mobile-cloud=@own-link.txt", "--link", "mobile-ledger=@tunnel.txt"),
        *("--duration", "3", "--deadline-ms", "60000", "--allow-unverified"),
        *("--bundle", str(BUNDLE), "--out", str(tmp_path / "load")),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads((tmp_path / "load.json").read_text())
    assert (report["policy"], report["price_book"]) == (NAME, "own-2026")
    assert (report["trace"], report["requests"], report["trace_left_out"]) == (
        "arrivals.txt",
        30,
        0,
    )
    assert report["endings"] == {"answered": 30}
    assert report["ledger"]["consistent"], report["ledger"]
    links = {link["hop"]: link for link in report["links"]}
    assert links["mobile-edge"]["spec"] == "4g,up=uplink.trace,down=downlink.trace"
    assert links["mobile-edge"]["nominal_up_mbps"] == pytest.approx(8e-3 * 1448 * 276 / 2000)
    assert links["mobile-cloud"]["nominal_rtt_ms"] == 84
    assert links["mobile-ledger"]["spec"] == "4g", "the first line of the schedule"


@pytest.mark.long
def test_evaluate_has_a_row_for_the_policy(tmp_path: Path) -> None:
    """On exit outputs of a trained encoder, with a file of predictions."""
    if not OUTPUTS.is_dir():
        pytest.skip(f"no exit outputs at {OUTPUTS}")
    predictions = tmp_path / "predictions.csv"
    done = in_examples(
        *("evaluate", str(OUTPUTS), "--policy", PATH, "--price-book", "prices.json"),
        *("--predictions", str(predictions), "--out", str(tmp_path)),
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.json")
    assert file.name.endswith(f"-test-own-2026-{NAME}.json")
    result = json.loads(file.read_text())
    row = result["methods"][NAME]
    assert f"{NAME:<18}{row['accuracy']:>9.2f}" in done.stdout
    assert {NAME} <= set(result["by_cloud_fee"]["1.0"]["methods"])
    rows = [one for one in _read(predictions) if one["policy"] == NAME]
    assert len(rows) == result["reported"]
    right = [one["right"] == "True" for one in rows]
    assert 100 * sum(right) / len(right) == pytest.approx(row["accuracy"], abs=1e-4)
    cost = sum(float(one["cost_lambda"]) for one in rows) / len(rows)
    assert cost == pytest.approx(row["cost_lambda"], abs=1e-4)
    tiers = Counter(one["tier"] for one in rows)
    assert tiers["edge"] / len(rows) == pytest.approx(row["shares"]["edge"], abs=1e-4)
    for one in rows:
        margin = 2 * float(one["confidence"]) - 1
        assert one["tier"] == "cloud" or margin >= MARGIN - 1e-5
        assert one["right"] == str(one["label"] == one["answer"])
        assert int(one["attempts"]) >= (2 if one["tier"] == "cloud" else 1)


def _read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_gateway_serves_the_configured_policy_only_by_its_name(tmp_path: Path) -> None:
    """`dimee up --policy module:Class`, and a request that names the module."""
    options = ("--policy", PATH, "--state-dir", tmp_path)
    with (
        dimee_up(*options, folder=EXAMPLES, bundle=BUNDLE) as running,
        running.client() as http,
    ):
        assert http.get("/readyz").json()["policy"] == NAME
        answer = http.post("/v1/classify", json={"texts": TEXTS[:1]}).json()
        assert answer["items"][0]["result"]["policy"] == NAME
        named = {"texts": TEXTS[:1], "policy": NAME}
        assert http.post("/v1/classify", json=named).status_code == 200
        for path in (PATH, "os:system", "json.tool:main"):
            refused = http.post("/v1/classify", json={"texts": TEXTS[:1], "policy": path})
            assert refused.status_code == 422, path
            assert "is not known" in refused.json()["error"]["message"]
