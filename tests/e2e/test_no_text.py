"""Logs, outboxes and ledger contain no text, at the most verbose log level."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from testbed.processes.children import start_child
from testbed.processes.processes import Testbed
from tests.support.paths import free_ports
from tests.support.running_testbed import start

WORDS = ("zanzibarquokka", "velvetmarmot")
MARKER = " ".join(WORDS)
JSON = {"content-type": "application/json"}
LONG = f"{MARKER} " + "word " * 5_000

CRASHING = """
from fastapi import FastAPI, Request
from shared.serving.error_handlers import install_error_handlers
from shared.serving.server import run_server
from shared.settings import ServiceSettings

def create_app(settings):
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/readyz")
    def readyz():
        return {}

    @app.post("/broken")
    async def broken(request: Request):
        text = (await request.body()).decode()
        try:
            int(text)
        except ValueError as error:
            raise RuntimeError(f"cannot do {text}") from error

    return app

run_server(create_app, ServiceSettings)
"""


def found_in(folder: Path, words: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the files whose content or name contains one of the words, ignoring case."""
    hits = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = (str(file).encode() + file.read_bytes()).lower()
        held = [w for w in words if w.encode() in content or w.encode("utf-16-le") in content]
        if held:
            hits[file.name] = held
    return hits


@pytest.fixture
def verbose_testbed(tmp_path: Path) -> Iterator[Testbed]:
    with start(tmp_path, DIMEE_LOG_LEVEL="debug", DIMEE_FAIL_OVER='["edge", "cloud"]') as testbed:
        yield testbed


def gateway_bodies() -> list[bytes]:
    """Send requests to the gateway that are answered, rejected, too large and too late."""
    wrong: list[Any] = [
        {"texts": [MARKER], MARKER: MARKER},
        {"texts": MARKER},
        {"texts": [{MARKER: MARKER}]},
        {"texts": [MARKER], "policy": MARKER},
        {"texts": [MARKER], "policy": MARKER * 9},
        {"texts": [MARKER], "deadline_ms": MARKER},
        {"texts": [MARKER], "pairs": [MARKER]},
        {"texts": [f"{MARKER}\0"]},
        {"texts": [f"{MARKER}\ud800"]},
        {"texts": [LONG]},
        {"texts": [MARKER] * 1_001},
        {"texts": [MARKER], "policy": "cloud", "deadline_ms": 1},
        {"texts": [MARKER, f"{MARKER} again"], "policy": "edge", "deadline_ms": 1},
    ]
    good = [
        {"texts": [MARKER, f"{MARKER} twice"], "policy": policy}
        for policy in ("cascade-routing", "mobile", "edge", "cloud", "i-splitee", "dimee-adaptive")
    ]
    return [
        *(json.dumps(body).encode() for body in [*good, *wrong]),
        f'{{"texts": ["{MARKER}"'.encode(),
        MARKER.encode(),
        b'{"texts": ["\xff' + MARKER.encode() + b'"]}',
    ]


def tier_requests() -> list[dict[str, Any]]:
    """Send the same requests to a tier."""
    ids = {"request_id": "r-x", "attempt_id": "a-x"}
    bodies: list[dict[str, Any]] = [
        {**ids, "text": MARKER, "bundle_id": "another"},
        {**ids, "text": MARKER, "pair": MARKER},
        {**ids, "text": LONG},
        {**ids, "text": MARKER, "alpha": MARKER},
        {"request_id": MARKER, "attempt_id": MARKER, "text": MARKER},
    ]
    return bodies


def test_logs_outboxes_and_ledger_contain_no_text(verbose_testbed: Testbed, tmp_path: Path) -> None:
    urls = {name: role.url for name, role in verbose_testbed.roles.items()}
    statuses: set[int] = set()
    with httpx.Client(trust_env=False, timeout=60) as http:

        def send(url: str, **what: Any) -> None:
            statuses.add(http.post(url, **what).status_code)

        for body in gateway_bodies():
            send(f"{urls['mobile']}/v1/classify", content=body, headers=JSON)
            send(f"{urls['mobile']}/v1/classify", content=body)  # and without a content type
        for facts in tier_requests():
            for tier in ("edge", "cloud"):
                send(f"{urls[tier]}/v1/infer", json=facts)
        headers = {"dimee-request-id": "r-y", "dimee-attempt-id": "a-y"}
        send(f"{urls['edge']}/v1/resume", content=MARKER.encode(), headers=headers)
        headers["dimee-text-hash"] = MARKER * 9
        send(f"{urls['edge']}/v1/resume", content=MARKER.encode(), headers=headers)
        send(f"{urls['ledger']}/v1/entries", json={"entries": [{"label": MARKER}]})
        verbose_testbed.kill("edge")
        body = {"texts": [MARKER], "policy": "edge"}
        send(f"{urls['mobile']}/v1/classify", json=body)
        verbose_testbed.kill("cloud")
        send(f"{urls['mobile']}/v1/classify", json=body)
        report = wait_for_consistent(LedgerClient(urls["ledger"]), 5, requests=14)
    assert {200, 413, 422, 503, 504} <= statuses
    assert report.requests >= 14
    assert found_in(tmp_path, WORDS) == {}
    seen = found_in(tmp_path, ("mobile", "edge"))
    assert {"mobile.log", "ledger.sqlite"} <= seen.keys(), "the search would find something"
    assert "DEBUG" in (tmp_path / "ledger.log").read_text(), "the logs are verbose"


def test_internal_errors_are_logged_without_text(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    settings = {"DIMEE_PORT": str(port), "DIMEE_LOG_LEVEL": "debug"}
    (tmp_path / "crash.py").write_text(CRASHING)
    with (tmp_path / "crash.log").open("wb") as log:
        process = start_child(
            [str(tmp_path / "crash.py")],
            env=os.environ | settings,
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            trust_env=False,
            timeout=30,
            transport=httpx.HTTPTransport(retries=8),
        ) as http:
            assert http.get("/readyz").status_code == 200
            answer = http.post("/broken", content=MARKER.encode())
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
            assert http.get("/readyz").status_code == 200
    finally:
        process.terminate()
        process.wait(20)
    log_text = (tmp_path / "crash.log").read_text()
    assert found_in(tmp_path, WORDS) == {}
    assert "builtins.RuntimeError" in log_text
    assert "caused by builtins.ValueError" in log_text
    assert " broken" in log_text, "the log names the place"
