"""The calls of the gateway's page on real processes: figures, explanations, links, stop."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from shared.domain import Side
from shared.ledger.client import LedgerClient
from shared.ledger.entry import LedgerEntry
from shared.serving.tokens import new_token, revoke_token
from testbed.links.hops import make_hops
from testbed.processes.processes import Testbed
from testbed.up import PORTS, make_testbed
from tests.support.gateway import make_gateway
from tests.support.paths import BUNDLE, free_ports
from tests.support.running_testbed import sentences

API = "/dashboard/api"


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Testbed]:
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    hops = make_hops(["mobile-edge=lan", "mobile-cloud=wifi"])
    environment = {"DIMEE_BUNDLE": str(BUNDLE)} | settings
    with make_testbed(ports, folder, environment, hops) as testbed:
        testbed.start_all()
        yield testbed


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    with running(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def shared_testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    with running(tmp_path_factory.mktemp("shared")) as started:
        yield started


@contextmanager
def clients(testbed: Testbed) -> Iterator[tuple[httpx.Client, LedgerClient]]:
    """Yield a client of the page's calls and one of the ledger."""
    url = testbed.roles["mobile"].url
    ledger = LedgerClient(testbed.roles["ledger"].url)
    with closing(ledger), httpx.Client(base_url=url, trust_env=False, timeout=30) as page:
        yield page, ledger


@pytest.fixture
def both(shared_testbed: Testbed) -> Iterator[tuple[httpx.Client, LedgerClient]]:
    with clients(shared_testbed) as opened:
        yield opened


@pytest.fixture
def both_alone(testbed: Testbed) -> Iterator[tuple[httpx.Client, LedgerClient]]:
    with clients(testbed) as opened:
        yield opened


def events(page: httpx.Client, last_id: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield id, name and data of the events until the stream ends."""
    headers = {"last-event-id": last_id} if last_id else {}
    fields: dict[str, str] = {}
    with page.stream("GET", f"{API}/events", headers=headers) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}


def classify(page: httpx.Client, text: str, **options: Any) -> dict[str, Any]:
    answer = page.post(f"{API}/classify", json={"text": text} | options)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def eventually(read: Callable[[], Any]) -> Any:
    """Return the first value of ``read`` that is true: entries reach the ledger a little later."""
    until = time.monotonic() + 30
    while not (value := read()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return value


def callers(ledger: LedgerClient, request_id: str) -> list[LedgerEntry]:
    def read() -> list[LedgerEntry]:
        found = ledger.list_requests(limit=500)
        if request_id not in [one.request_id for one in found]:
            return []
        return ledger.request_entries(request_id)

    return [entry for entry in eventually(read) if entry.side is Side.CALLER]


def test_figures_and_requests_equal_those_of_the_ledger(
    both_alone: tuple[httpx.Client, LedgerClient],
) -> None:
    page, ledger = both_alone
    texts = sentences(30)
    for number, text in enumerate(texts):
        policy = ("mobile", "mobile", "edge", "cloud")[number % 4]
        body = {"texts": [text], "policy": policy}
        assert page.post("/v1/classify", json=body).status_code == 200
    figures = next(data for _, name, data in events(page) if name == "stats")
    eventually(lambda: ledger.summary().answered == len(texts))
    summary = ledger.summary()
    assert (figures["answered"], figures["failed"]) == (len(texts), 0)
    assert {tier: round(share * len(texts)) for tier, share in figures["shares"].items()} == (
        summary.answered_by_tier
    )
    assert figures["cost_lambda"] == pytest.approx(summary.cost_lambda)
    assert figures["all_cloud_lambda"] == pytest.approx(summary.all_cloud_lambda)
    assert figures["cost_usd"] == pytest.approx(summary.cost_usd)
    assert figures["in_flight"] == figures["queue"] == 0
    listed = ledger.list_requests(limit=500)
    entries = [
        entry
        for one in listed
        for entry in ledger.request_entries(one.request_id)
        if entry.side is Side.CALLER
    ]
    durations = {
        "total_ms": (figures["total_ms"], [one.total_ms for one in listed]),
        **{
            hop: (shown, [getattr(entry, f"{hop}_ms") for entry in entries])
            for hop, shown in figures["hops_ms"].items()
        },
    }
    for name, (shown, recorded) in durations.items():
        expected = dict(
            zip(("p50", "p95", "p99"), np.percentile(recorded, (50, 95, 99)), strict=True)
        )
        assert shown == pytest.approx(expected), name
    shown = page.get(f"{API}/requests", params={"since": "1h", "policy": "", "limit": 500}).json()
    assert shown["problem"] is None
    assert shown["requests"] == [one.model_dump(mode="json") for one in listed]
    edge = page.get(f"{API}/requests", params={"tier": "edge"}).json()["requests"]
    assert {one["tier"] for one in edge} == {"edge"}
    assert len(edge) == summary.answered_by_tier["edge"]


def test_explanation_and_event_are_those_of_the_recorded_request(
    both: tuple[httpx.Client, LedgerClient],
) -> None:
    page, ledger = both
    stream = events(page)
    next(stream)
    answer = classify(page, "a gripping, funny film")
    result, explanation = answer["result"], answer["explanation"]
    entries = callers(ledger, result["request_id"])
    assert explanation["request_id"] == result["request_id"]
    for shown, entry in zip(explanation["attempts"], entries, strict=True):
        for name in ("queue_ms", "compute_ms", "network_ms", "round_trip_ms", "cost_lambda",
                     "exit_layer", "confidence", "sent_bytes", "received_bytes"):  # fmt: skip
            assert shown[name] == getattr(entry, name), name
    chosen = [tier for tier in explanation["tiers"] if tier["chosen"]]
    assert [tier["tier"] for tier in chosen] == [entries[0].tier.value]
    assert chosen[0]["figure"]["name"] == "expected value"
    exits = chosen[0]["exits"]
    assert exits[-1] == {"layer": entries[0].exit_layer, "confidence": entries[0].confidence}
    event_id, _, record = next(event for event in stream if event[1] == "request")
    (listed,) = [one for one in ledger.list_requests() if one.request_id == result["request_id"]]
    assert record == listed.model_dump(mode="json")
    stream.close()
    record_of_id = page.get(f"{API}/requests/{result['request_id']}").json()
    assert {entry["side"] for entry in record_of_id["entries"]} == {"caller", "tier"}
    assert record_of_id["trace_id"] == record["trace_id"]
    assert page.get(f"{API}/requests/unknown").status_code == 404
    again = classify(page, "a dull film")["result"]["request_id"]
    missed = next(data for _, name, data in events(page, event_id) if name == "request")
    assert missed["request_id"] == again


def test_every_exit_of_the_mobile_is_shown(both: tuple[httpx.Client, LedgerClient]) -> None:
    page, _ = both
    answer = classify(page, "neither good nor bad, perhaps both", policy="early-exit")
    last = answer["result"]["exit_layer"]
    (mobile,) = [one for one in answer["explanation"]["tiers"] if one["tier"] == "mobile"]
    assert [one["layer"] for one in mobile["exits"]] == list(range(1, last + 1))
    assert mobile["exits"][-1]["confidence"] == pytest.approx(
        answer["result"]["confidence"], abs=1e-6
    )


def test_link_is_cut_and_the_request_fails_over(both: tuple[httpx.Client, LedgerClient]) -> None:
    page, ledger = both
    links = {one["hop"]: one for one in page.get(f"{API}/state").json()["links"]}
    assert {hop: one["spec"] for hop, one in links.items()} == {
        "mobile-edge": "lan",
        "mobile-cloud": "wifi",
    }
    assert {"3g", "lan"} <= set(links["mobile-edge"]["presets"])
    cut = page.put(f"{API}/links/mobile-cloud", json={"spec": "reset"}).json()
    assert (cut["outage"], cut["start_spec"]) == ("reset", "wifi")
    answer = classify(page, "a gripping, funny film", policy="cloud")
    assert answer["result"]["failed_over"]
    states = [attempt["state"] for attempt in answer["explanation"]["attempts"]]
    assert states[0] == "failed"
    assert states[-1] == "answered"
    assert len(callers(ledger, answer["result"]["request_id"])) == len(states)
    slow = page.put(f"{API}/links/mobile-edge", json={"spec": "3g,loss=0.01"}).json()
    assert slow["spec"] == "3g,loss=0.01"
    restored = page.put(f"{API}/links/mobile-cloud", json={"spec": None}).json()
    assert (restored["spec"], restored["outage"]) == ("wifi", None)
    eventually(lambda: classify(page, "fine", policy="cloud")["result"]["tier"] == "cloud")
    for hop, body, status in (
        ("mobile-moon", {"spec": "3g"}, 404),
        ("mobile-edge", {"spec": "smoke signals"}, 422),
        ("mobile-edge", {"spec": "lan,up=/etc/passwd"}, 422),
        ("mobile-edge", {}, 422),
    ):
        refused = page.put(f"{API}/links/{hop}", json=body)
        assert refused.status_code == status, refused.text


def test_failed_request_shows_its_attempts(both: tuple[httpx.Client, LedgerClient]) -> None:
    page, _ = both
    page.put(f"{API}/links/mobile-edge", json={"spec": "stall"})
    failed = page.post(
        f"{API}/classify", json={"text": "fine", "policy": "edge", "deadline_ms": 300}
    )
    body = failed.json()
    if failed.status_code == 200:  # another tier answered in the time that was left
        assert body["result"]["failed_over"]
    else:
        assert failed.status_code == 504
        assert body["error"]["code"] == "deadline_exceeded"
        assert body["attempts"][0]["state"] == "timed_out"
        assert body["attempts"] == body["explanation"]["attempts"]
    for text, field in (("", "text"), ("x" * 20_001, "text")):
        refused = page.post(f"{API}/classify", json={"text": text})
        assert refused.status_code in (413, 422)
        assert refused.json()["error"]["field"] == field


def test_what_if_replays_requests_of_the_ledger(
    both_alone: tuple[httpx.Client, LedgerClient],
) -> None:
    page, ledger = both_alone
    empty = page.post(f"{API}/whatif", json={"gamma": 5}).json()
    assert empty["rows"] == []
    assert len(empty["notes"]) == 1
    for text in sentences(20):
        classify(page, text)
    eventually(lambda: ledger.summary().answered == 20)
    before, after = page.post(f"{API}/whatif", json={"gamma": 60, "link": "3g"}).json()["rows"]
    assert (before["name"], before["gamma"], before["all_cloud_lambda"]) == ("before", 15, 18)
    assert (after["name"], after["gamma"], after["all_cloud_lambda"]) == ("after", 60, 63)
    assert before["cost_lambda"] == pytest.approx(ledger.summary().cost_lambda / 20), (
        "at the present prices every request costs what was recorded"
    )
    assert sum(after["shares"].values()) == pytest.approx(1)
    assert page.post(f"{API}/whatif", json={"gamma": -1}).status_code == 422
    assert page.post(f"{API}/whatif", json={"link": "string"}).status_code == 422


def test_page_works_while_the_ledger_is_down(
    testbed: Testbed, both_alone: tuple[httpx.Client, LedgerClient]
) -> None:
    page, _ = both_alone
    testbed.kill("ledger")
    request_id = classify(page, "a gripping, funny film")["result"]["request_id"]
    shown = page.get(f"{API}/requests").json()
    assert shown["requests"] == []
    assert "cannot be reached" in shown["problem"]
    assert page.post(f"{API}/whatif", json={}).json()["rows"] == []
    assert page.get(f"{API}/requests/{request_id}").status_code == 503
    figures = next(
        data for _, name, data in events(page) if name == "stats" and data["outbox_rows"]
    )
    assert figures["answered"] == 1
    assert figures["outbox_rows"] == 2, "both sides of the mobile's attempt"
    assert figures["outbox_age_s"] > 0


def test_open_streams_do_not_hold_up_a_stop(
    testbed: Testbed, both_alone: tuple[httpx.Client, LedgerClient]
) -> None:
    page, _ = both_alone
    process = testbed.processes["mobile"]
    streams = [events(page) for _ in range(3)]
    first, *_ = [next(stream) for stream in streams]
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=40)  # a stop waits 65 s for a response that does not end
    for stream in streams:
        list(stream)
    testbed.start("mobile")
    testbed.wait_ready("mobile")
    _, name, figures = next(events(page, first[0]))
    assert (name, figures["answered"]) == ("stats", 0)


def test_ledger_that_refuses_the_gateway_is_a_problem_and_no_sign_out(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.jsonl"
    device, _ = new_token(tokens, "device", ["infer", "ledger:write"])
    person, _ = new_token(tokens, "anna", ["classify", "status"])
    with running(tmp_path, DIMEE_TOKENS=str(tokens), DIMEE_TOKEN=device) as testbed:
        url = testbed.roles["mobile"].url
        script = {"x-dimee-dashboard": "1"}
        with httpx.Client(base_url=url, trust_env=False, timeout=30, headers=script) as browser:
            assert browser.get(f"{API}/requests").status_code == 401
            bearer = {"authorization": f"Bearer {person}"}
            assert browser.post("/dashboard/sign-in", headers=bearer).status_code == 204
            request_id = classify(browser, "a gripping, funny film")["result"]["request_id"]
            shown = browser.get(f"{API}/requests")
            assert shown.status_code == 200
            assert "ledger:read" in shown.json()["problem"]
            assert browser.get(f"{API}/requests/{request_id}").status_code == 503
            stream = events(browser)
            next(stream)
            revoke_token(tokens, "anna")
            list(stream)  # ends
            assert browser.get(f"{API}/requests").status_code == 401
    for log in tmp_path.glob("*.log"):
        assert person not in log.read_text()


def test_ledger_that_is_off_is_a_problem(tmp_path: Path) -> None:
    app = make_gateway(tmp_path, ledger_url="off")
    with TestClient(app) as browser:
        assert "DIMEE_LEDGER_URL is off" in browser.get(f"{API}/requests").json()["problem"]
        assert "DIMEE_LEDGER_URL is off" in browser.get(f"{API}/state").json()["ledger"]
        answer = browser.post(f"{API}/classify", json={"text": "fine"}).json()
        assert answer["explanation"]["attempts"][0]["tier"] == "mobile"
        assert browser.put(f"{API}/links/mobile-edge", json={"spec": "3g"}).status_code == 404
