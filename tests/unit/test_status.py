"""``dimee status`` and ``GET /v1/status``: processes, certificate, audits and alarms."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from fastapi import Request
from fastapi.testclient import TestClient

import mobile_client.cli.status
from mobile_client.cli.status import collect, show, status
from mobile_client.gateway.app import client_name, create_app
from mobile_client.monitoring.certificate_monitor import monitor_state_file
from mobile_client.monitoring.health import AlarmReport, AuditReport, MobileHealth
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle
from shared.domain import Tier
from shared.errors import Forbidden
from tests.support.certificates import written
from tests.support.paths import BUNDLE, free_ports

URLS = {name: f"http://{name}" for name in ("mobile", "edge", "cloud", "ledger")}
CLIENT = httpx.Client
SINCE = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
TIER = {"status": "ready", "bundle_id": "b1", "layers": 4, "certificate_id": "c1"}


def health(**changes: Any) -> dict[str, Any]:
    audits = AuditReport(
        share=0.01, seen=400, differ=4, sent=250, failed=1, dropped=0, waiting=2,
        bound=0.02, e_value=0.5, alarm_at=100.0,
    )  # fmt: skip
    facts: dict[str, Any] = {
        "status": "ok", "bundle_id": "b1", "policy": "cascade-routing", "certificate_id": "c1",
        "certificate": "With probability 95 % …", "degraded": False, "audits": audits,
        "shares": {"edge": {"calibrated": 0.25, "now": 0.3}},
    }  # fmt: skip
    return MobileHealth(**facts | changes).model_dump(mode="json")


DEGRADED = health(
    status="degraded",
    degraded=True,
    degraded_since=SINCE,
    alarms=[AlarmReport(kind="disagreement", since=SINCE, message="too many", degrades=True)],
)


REFUSED = {"recording": "refused", "problem": "the outbox cannot be written"}
UNDELIVERED = {
    "undelivered": 12, "waiting_s": 75.2, "url": "http://ledger", "problem": "connection refused",
}  # fmt: skip


def answers(**bodies: Any) -> httpx.MockTransport:
    responses = {"mobile": health(), "edge": TIER, "cloud": TIER, "ledger": {"status": "ready"}}
    responses |= bodies

    def handle(request: httpx.Request) -> httpx.Response:
        body = responses[request.url.host]
        if body is None:
            raise httpx.ConnectError("refused", request=request)
        if isinstance(body, int):
            return httpx.Response(body, json={"error": {"code": "not_ready", "message": "no"}})
        assert request.url.path == ("/v1/status" if request.url.host == "mobile" else "/readyz")
        return httpx.Response(200, content=body if isinstance(body, str) else json.dumps(body))

    return httpx.MockTransport(handle)


@pytest.mark.parametrize(
    ("bodies", "problems"),
    [
        ({}, []),
        ({"edge": None}, ["the edge cannot be reached (refused)"]),
        ({"cloud": 503}, ["the cloud is not ready (status 503)"]),
        ({"ledger": "<html>"}, ["the ledger returned no JSON; another program"]),
        ({"mobile": {"status": "ok"}}, ["the mobile runs another version"]),
        (
            {"mobile": DEGRADED},
            ["degraded: the certificate does not hold, and everything goes to the cloud"],
        ),
        ({"edge": TIER | {"bundle_id": "b2"}}, ["the edge has the bundle_id b2, the mobile b1"]),
        ({"cloud": TIER | {"certificate_id": None}}, []),
        ({"cloud": TIER | {"certificate_id": "c2"}}, ["the cloud has the certificate_id c2"]),
        ({"mobile": None}, ["the mobile cannot be reached"]),
        ({"edge": TIER | {"ledger": None}}, []),
        (
            {"ledger": {"status": "ready", "problem": "the disk is full"}},
            ["the ledger did not store the last delivery: the disk is full"],
        ),
        ({"mobile": health(outbox=REFUSED)}, ["the mobile: the outbox cannot be written"]),
        ({"edge": TIER | {"outbox": REFUSED | {"recording": "off"}}}, []),
        (
            {"mobile": health(ledger=UNDELIVERED), "edge": TIER | {"ledger": UNDELIVERED}},
            [
                f"the {name} has 12 ledger entries undelivered for 75 s: http://ledger: "
                "connection refused"
                for name in ("mobile", "edge")
            ],
        ),
    ],
)
def test_status_lists_problems(bodies: dict[str, Any], problems: list[str]) -> None:
    with httpx.Client(transport=answers(**bodies)) as http:
        report = collect(http, URLS)
    assert len(report.problems) == len(problems)
    assert all(
        found.startswith(said) for found, said in zip(report.problems, problems, strict=True)
    )
    assert report.healthy == (not problems)


def test_status_shows_mode_and_open_breakers(capsys: pytest.CaptureFixture[str]) -> None:
    mobile = health(mode="edge-max", breakers={"edge": "open", "cloud": "closed"})
    with httpx.Client(transport=answers(mobile=mobile)) as http:
        show(collect(http, URLS))
    lines = capsys.readouterr().out.splitlines()
    assert lines[4:6] == [
        "mode         edge-max",
        "breaker      edge open: it failed repeatedly and gets no requests",
    ]


def test_status_shows_replicas(capsys: pytest.CaptureFixture[str]) -> None:
    replica = {"ready": "ready", "breaker": "closed", "outstanding": 0}
    cloud = [
        replica | {"url": "http://c1", "replica": "cloud-1", "delay_ms": 12.3},
        replica | {"url": "http://c2", "ready": "unreachable", "breaker": "open"},
    ]
    mobile = health(replicas={"edge": [replica | {"url": "http://edge"}], "cloud": cloud})
    urls = URLS | {"cloud": "http://c1,http://c2"}
    bodies = {"c1": TIER | {"replica": "cloud-1"}, "c2": TIER | {"bundle_id": "b2"}}
    with httpx.Client(transport=answers(mobile=mobile, **bodies)) as http:
        report = collect(http, urls)
    assert report.problems == ["the cloud-2 has the bundle_id b2, the mobile b1"]
    show(report)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == [
        "cloud-1 up    http://c1   bundle b1   layers 4   replica cloud-1",
        "cloud-2 up    http://c2   bundle b2   layers 4",
    ]
    assert lines[5:7] == [
        "replica      cloud cloud-1 at http://c1: ready, breaker closed, 0 in progress   12 ms",
        "replica      cloud unnamed at http://c2: unreachable, breaker open, 0 in progress",
    ]


def test_status_prints_processes_certificate_audits_and_alarms(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with httpx.Client(transport=answers()) as http:
        show(collect(http, URLS))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mobile  up    http://mobile   bundle b1   policy cascade-routing"
    assert lines[1] == "edge    up    http://edge   bundle b1   layers 4"
    assert lines[4:] == [
        "certificate  With probability 95 % …",
        "audits       400 answers compared (1.00% of requests), 4 differ from the cloud (1.00%)",
        "             250 sent to the cloud, 1 failed, 0 dropped, 2 waiting",
        "             e-value against at most 2.00%: 0.5; the alarm is raised at 100",
        "shares       edge 30.0% (25.0%); calibrated shares in brackets",
        "alarms       none",
        "healthy",
    ]
    with httpx.Client(transport=answers(mobile=DEGRADED)) as http:
        show(collect(http, URLS))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [
        "alarm        2026-11-23 10:30:00 UTC disagreement: too many",
        "degraded since 2026-11-23 10:30:00 UTC",
        "problem      degraded: the certificate does not hold, and everything goes to the cloud",
    ]


def run(monkeypatch: pytest.MonkeyPatch, transport: httpx.MockTransport, *words: str) -> Result:
    monkeypatch.setattr(
        mobile_client.cli.status.httpx, "Client", lambda **_: CLIENT(transport=transport)
    )
    urls = [word for name in ("edge", "cloud", "ledger") for word in (f"--{name}-url", URLS[name])]
    return CliRunner().invoke(status, ["--mobile-url", URLS["mobile"], *urls, *words])


def test_status_exit_code_and_json_show_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, answers(), "--json")
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    assert (printed["healthy"], printed["mobile"]["audits"]["seen"]) == (True, 400)
    assert printed["processes"]["edge"]["up"]
    for bodies in ({"mobile": DEGRADED}, {"ledger": None}):
        done = run(monkeypatch, answers(**bodies), "--json")
        assert done.exit_code == 1
        assert not json.loads(done.stdout)["healthy"]


def test_reset_removes_the_state_of_the_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = monitor_state_file(tmp_path, "c1")
    file.parent.mkdir()
    file.write_text("{}")
    words = ("--reset-alarm", "--state-dir", str(tmp_path))
    done = run(monkeypatch, answers(mobile=DEGRADED), *words)
    assert "the alarm is reset" in done.stderr
    assert not file.exists()
    assert "there was nothing to reset" in run(monkeypatch, answers(), *words).stderr


def test_gateway_returns_the_status(bundle: Bundle, tmp_path: Path) -> None:
    ports = free_ports(3)
    settings = MobileSettings(
        bundle=BUNDLE,
        state_dir=tmp_path,
        certificate=written(bundle, tmp_path, thresholds={"cost_weight": 0.0, "alpha": 1.0}),
        audit_share=1.0,
        fail_over=(Tier.MOBILE,),
        ledger_url=f"http://127.0.0.1:{ports[0]}",
        edge_url=f"http://127.0.0.1:{ports[1]}",
        cloud_url=f"http://127.0.0.1:{ports[2]}",
    )
    with TestClient(create_app(settings)) as http:
        body = {"texts": ["a fine film"]}
        answer = http.post("/v1/classify", json=body).json()
        result = answer["items"][0]["result"]
        said = http.get("/v1/status").json()
        ready = http.get("/readyz").json()
        schema = http.get("/openapi.json").json()["components"]["schemas"]["Classification"]
    expected = json.loads(settings.certificate.read_text())["certificate_id"]  # type: ignore[union-attr]
    # offline: the certificate does not cover the mobile's answer, which is not audited
    assert (result["degraded_because"], result["certificate_id"]) == ("offline", None)
    assert ready["certificate_id"] == said["certificate_id"] == expected
    assert (said["status"], said["audits"]["share"], said["audits"]["waiting"]) == ("ok", 1.0, 0)
    assert said["certificate"].startswith("With probability 95 %")
    assert {"degraded", "certificate_id"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", "10.0.0.7"), ("x-caller", "shop"), ("x-other", "10.0.0.7"), ("x-long", "l" * 64)],
)
def test_gateway_names_the_client(header: str, expected: str) -> None:
    headers = [(b"x-caller", b"shop"), (b"x-long", b"l" * 100)]
    scope = {"type": "http", "headers": headers, "client": ("10.0.0.7", 40_000)}
    assert client_name(Request(scope), header) == expected


def test_status_reports_a_rejected_token() -> None:
    message = "the token of mobile-1 lacks the scope status"

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.host == "mobile":
            return httpx.Response(403, json=Forbidden(message).payload())
        return httpx.Response(200, json=TIER)

    with CLIENT(transport=httpx.MockTransport(handle)) as http:
        report = collect(http, URLS)
    assert report.problems == [f"the mobile rejects this command's token ({message})"]
