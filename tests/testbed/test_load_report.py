"""Report and page of a run: the figures match the samples, and the page loads and runs nothing."""

from __future__ import annotations

import copy
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from shared.domain import InputText
from shared.wire import ClassifyResponse
from testbed.load.accuracy import accuracy_lines
from testbed.load.actions import describe_action
from testbed.load.ledger_check import describe_ledger
from testbed.load.page import load_page
from testbed.load.report import make_report
from testbed.load.runner import ActionRecord
from testbed.load.sample import Sample, request_body
from testbed.load.scenarios import scenario_facts

DEADLINE_MS = 1_000.0
EVIL = "<script>alert('x')</script>&\""
FACTS: dict[str, Any] = {
    "scenario": "steady", "scenario_title": "constant rate", "path": "policy",
    "policy": "cascade-routing", "rate": 20.0, "warm_up_requests": 2,
    "duration_s": 4.0, "deadline_ms": DEADLINE_MS,
    "seed": 1, "trace": None, "trace_left_out": 0, "bundle_id": "b" * 16, "links": [],
    "verified_links": None, "unverified_because": "the testbed has no emulated link",
    "made_at": "2026-11-23T00:00:00Z", "commit": "abc", "command": "dimee load",
    "ledger": {
        "consistent": True, "error": None, "requests": 3, "total_findings": 0, "findings": [],
    },
    "machine": {"cores": 2, "load_before": 0.5, "system": "Linux", "python": "3.11"},
}  # fmt: skip
LINK = {
    "hop": "mobile-edge", "spec": "4g", "nominal_rtt_ms": 70.0, "rtt_ms": 70.7,
    "nominal_up_mbps": 10.0, "up_mbps": 10.1, "nominal_down_mbps": 12.0, "down_mbps": 11.9,
    "deviation": {"rtt_ms": 0.01, "up_mbps": 0.01, "down_mbps": -0.0083}, "verified": True,
}  # fmt: skip


def attempt(tier: str, reason: str, state: str = "answered", **times: float) -> dict[str, Any]:
    return {"attempt_id": "a", "tier": tier, "reason": reason, "state": state} | times


def answer(tier: str, attempts: list[dict[str, Any]], total_ms: float) -> bytes:
    result = {
        "request_id": "r", "label": "positive", "probabilities": {"positive": 1.0},
        "confidence": 1.0, "tier": tier, "exit_layer": 1, "policy": "cascade-routing", "tokens": 5,
        "decision_ms": 0.5, "total_ms": total_ms, "bundle_id": "b" * 16, "attempts": attempts,
        "failed_over": len(attempts) > 1,
        "cost": {"cost_lambda": 1.5, "all_cloud_lambda": 12.0, "cost_usd": 1e-6, "energy_mj": 1.0,
                 "price_book": "p"},
    }  # fmt: skip
    made = ClassifyResponse.model_validate({"items": [{"result": result}]})
    return made.model_dump_json().encode()


def sample(number: int, latency_ms: float, status: int, content: bytes) -> Sample:
    one = Sample(number, number / 10, late_ms=2.0, latency_ms=latency_ms)
    one.read_response(status, content)
    return one


@pytest.fixture
def samples() -> list[Sample]:
    lost = attempt("edge", "route", "failed", round_trip_ms=30.0)
    saved = attempt("cloud", "fail_over", network_ms=20.0, queue_ms=1.0, compute_ms=9.0)
    near = attempt("mobile", "route", queue_ms=0.2, compute_ms=1.0, network_ms=0.1)
    return [
        sample(0, 80.0, 200, answer("cloud", [lost, saved], 70.0)),
        sample(1, 10.0, 200, answer("mobile", [near], 5.0)),
        sample(2, 14.0, 200, answer("mobile", [near], 6.0)),
        sample(3, 3.0, 429, b'{"error": {"code": "overloaded"}}'),
        sample(4, 1_100.0, 504, b"not json"),
    ]


def report(samples: list[Sample], **facts: Any) -> dict[str, Any]:
    actions = [ActionRecord(1.0, "edge killed")]
    return make_report(FACTS | facts, samples, actions, 4.0, DEADLINE_MS)


def test_every_request_has_an_ending_and_counts_sum(samples: list[Sample]) -> None:
    found = report(samples)
    assert found["endings"] == {"answered": 3, "shed": 1, "timed_out": 1}
    assert sum(found["endings"].values()) == found["requests"] == 5
    assert sum(one["requests"] for one in found["over_time"]) == 5
    assert sum(n for one in found["over_time"] for n in one["endings"].values()) == 5
    assert found["answered_by"] == {"mobile": 2, "edge": 0, "cloud": 1}
    assert found["over_deadline_by_50_ms"] == 1
    assert found["error_codes"] == {"overloaded": 1}
    assert found["attempts"] == {
        "cloud fail_over answered": 1, "edge route failed": 1, "mobile route answered": 2,
    }  # fmt: skip
    assert found["cost"]["against_all_cloud"] == pytest.approx(4.5 / 36)


def test_report_begins_with_the_answers_of_other_tiers_than_the_policy_chose(
    samples: list[Sample],
) -> None:
    found = report(samples)
    assert list(found)[:2] == ["not_from_chosen_tier", "answered"]
    assert (found["not_from_chosen_tier"], found["answered"]) == (1, 3)
    first_row = re.search(r"<table>\s*<tr>(.*?)</tr>", load_page(found), re.S)
    assert first_row is not None
    assert re.sub(r"<.*?>", "|", first_row[1]).split("|")[1::2] == [
        "answers not from the tier that the policy chose",
        "1 of 3",
    ]


def test_hops_sum_to_the_mean_latency(samples: list[Sample]) -> None:
    hops = report(samples)["hops_ms"]
    assert sum(hops["cloud"].values()) == pytest.approx(80.0)
    assert sum(hops["mobile"].values()) == pytest.approx(12.0)
    assert hops["cloud"]["failed attempts"] == 30.0
    assert hops["cloud"]["cloud network"] == 20.0
    assert hops["cloud"]["mobile (other)"] == pytest.approx(70 - 30 - 20 - 1 - 9 - 0.5)
    assert hops["cloud"]["client to gateway"] == pytest.approx(80 - 70 - 2)
    assert hops["cloud"]["sent late"] == 2.0


@pytest.mark.parametrize(
    ("status", "ending"),
    [(429, "shed"), (504, "timed_out"), (503, "unavailable"), (422, "refused"), (500, "failed"),
     (302, "failed"), (200, "failed")],
)  # fmt: skip
def test_every_status_is_an_ending(status: int, ending: str) -> None:
    assert sample(0, 1.0, status, b"{}").ending == ending


def test_run_without_an_answer_has_a_report() -> None:
    found = report([sample(0, 3.0, 429, b"{}")])
    assert found["latency_ms"] is None
    assert found["cost"]["against_all_cloud"] is None
    assert "shed 1" in load_page(found)


def test_body_has_a_policy_only_if_one_is_given() -> None:
    assert request_body(InputText("a"), None, 9.0) == {"texts": ["a"], "deadline_ms": 9.0}
    assert request_body(InputText("a"), "edge", 9.0)["policy"] == "edge"
    assert request_body(InputText("a", "b"), None, 9.0)["pairs"] == ["b"]


class Tags(HTMLParser):
    """Collects tags and their references, and checks that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self._add_references(attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self._add_references(attrs)

    def _add_references(self, attrs: list[tuple[str, str | None]]) -> None:
        names = ("src", "href", "action", "xlink:href")
        self.references += [str(value) for name, value in attrs if name in names]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_loads_nothing_and_runs_nothing(samples: list[Sample]) -> None:
    made = load_page(
        report(samples, links=[LINK], verified_links="mobile-edge=4g", unverified_because=None)
    )
    tags = Tags()
    tags.feed(made)
    assert not tags.open
    assert all(one.startswith("#") for one in tags.references), "only marks of the page itself"
    assert not tags.seen & {"script", "link", "img", "iframe", "object", "form"}
    without_names = re.sub(r'xmlns(:xlink)?="http://www.w3.org/[\w/]+"', "", made)
    assert not re.search(r"url\((?!#)|@import|https?://|\son\w+=", without_names)
    assert made.count("<svg") == 5
    for what in ("mobile-edge: 4g", "70.70 of 70 ms (+1.0%)", "edge killed", "12.5% of all-cloud"):
        assert what in made
    for heading in (
        "Latency over time",
        "Latency by hop",
        "Cost against all-cloud",
        "How this was measured",
    ):
        assert heading in made


def test_inserted_text_is_escaped(samples: list[Sample]) -> None:
    facts = copy.deepcopy(FACTS)
    for name in ("scenario_title", "path", "policy", "bundle_id", "commit", "command", "trace",
                 "unverified_because"):  # fmt: skip
        facts[name] = EVIL
    samples[3].error_code = EVIL
    samples[0].attempts[0] = EVIL
    found = report(samples, **facts | {"links": [LINK | {"spec": EVIL}]})
    found["actions"][0] |= {"name": EVIL, "error": EVIL}
    found["ledger"] = {"consistent": False, "error": EVIL}
    made = load_page(found)
    assert "<script" not in made
    assert made.count("&lt;script&gt;") >= 12


def test_accuracy_stands_beside_latency_and_cost_of_each_tier(samples: list[Sample]) -> None:
    samples[0].text = InputText("a", None, "negative")
    samples[1].text = InputText("b", None, "positive")
    samples[2].text = InputText("c", None, "positive")
    samples[3].text = InputText("d", None, "positive")  # not answered
    found = report(samples)
    assert (found["accuracy"]["share"], found["accuracy"]["texts"]) == (pytest.approx(2 / 3), 3)
    tiers = found["tiers"]
    assert tiers["edge"] is None
    assert (tiers["mobile"]["accuracy"]["share"], tiers["mobile"]["latency_ms"]["p50"]) == (1, 12)
    assert (tiers["cloud"]["accuracy"]["share"], tiers["cloud"]["cost_lambda"]) == (0, 1.5)
    total, head, mobile, cloud = accuracy_lines(found)
    assert total == "accuracy 66.7 % (20.8 to 93.9 %), 95 % interval of 3 texts"
    assert head.split() == [
        "tier",
        "answers",
        "texts",
        "accuracy,",
        "%",
        "p50",
        "ms",
        "p95",
        "ms",
        "λ/request",
    ]
    assert mobile.split()[:5] == ["mobile", "2", "2", "100.0", "%"]
    assert cloud.split()[-3:] == ["80.0", "80.0", "1.50"]
    page = load_page(found)
    assert "66.7 % (20.8 to 93.9 %), 95 % interval of 3 texts" in page
    assert "100.0 % (34.2 to 100.0 %)" in page
    assert "accuracy</th>" not in load_page(report([sample(0, 3.0, 429, b"{}")]))


def test_return_of_a_killed_tier_is_in_text_and_page(samples: list[Sample]) -> None:
    made = report(samples) | {
        "actions": [
            {"at_s": 1.0, "name": "edge killed", "error": None, "after_s": None},
            {"at_s": 2.25, "name": "edge ready again", "error": None, "after_s": 1.25},
            {"at_s": 3.0, "name": "edge trusted again", "error": None, "after_s": 2.0},
        ]
    }
    lines = [describe_action(action) for action in made["actions"]]
    assert lines == [
        "1.00 s: edge killed",
        "2.25 s: edge ready again after 1.25 s",
        "3.00 s: edge trusted again after 2.00 s (the mobile's circuit breaker is closed)",
    ]
    page = load_page(made)
    assert all(html.escape(line, quote=False).replace("'", "&#39;") in page for line in lines)
    late = {"at_s": 4.0, "name": "edge ready again", "error": "not before the end", "after_s": 3.0}
    assert describe_action(late) == "4.00 s: edge ready again (not before the end)"


def test_ledger_line_names_the_origin_of_its_requests(samples: list[Sample]) -> None:
    made = report(samples)
    for found, says in (
        (7, "consistent; 7 requests: 5 of the run, 2 of the warm-up"),
        (10, "10 requests: 5 of the run, 2 of the warm-up, 3 others"),
        (6, "6 requests: 5 of the run, 2 of the warm-up, 1 fewer, because"),
    ):
        made["ledger"] = FACTS["ledger"] | {"requests": found}
        assert says in describe_ledger(made)
        assert says.replace("'", "&#39;") in load_page(made)


def test_control_characters_reach_neither_page_nor_charts(samples: list[Sample]) -> None:
    evil = "\x1b[2J\x9b\u202eevil\u2066\x07"
    facts = dict.fromkeys(("scenario", "scenario_title", "policy", "bundle_id", "command"), evil)
    link = LINK | {"spec": evil, "hop": evil}
    page = load_page(report(samples, links=[link], trace=evil, **facts))
    assert not any(char in page for char in "\x1b\x9b\u202e\u2066\x07")
    assert "\\u202eevil" in page


@pytest.mark.parametrize("value", [0.0, -1.0, 1e300, 5e-324])
def test_absurd_figures_give_a_report(value: float, samples: list[Sample]) -> None:
    for one in samples:
        one.latency_ms = one.late_ms = one.cost_lambda = one.all_cloud_lambda = value
        one.hops_ms = dict.fromkeys(one.hops_ms, value)
    for some in (samples, samples[:1]):
        made = report(some)
        assert made["requests"] == len(some)
        assert "</html>" in load_page(made)


def test_send_times_from_a_file_are_described_as_such() -> None:
    times = Path("times.txt")
    assert scenario_facts("burst", None)["scenario"] == "burst"
    assert scenario_facts("burst", times) == {
        "scenario": "arrivals", "scenario_title": "send times from times.txt",
    }  # fmt: skip
    dies = scenario_facts("edge-dies", times)
    assert dies["scenario"] == "edge-dies with arrivals"
    assert dies["scenario_title"].startswith("send times from times.txt; the edge is killed")
