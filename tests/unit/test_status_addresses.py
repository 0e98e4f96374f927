"""``dimee status`` finds a running testbed, and asks the mobile about tiers out of its reach."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from mobile_client.cli.status import PROBE_TRIES, as_mobile_sees, collect, show, status
from mobile_client.monitoring.health import AuditReport, MobileHealth
from shared.testbed_file import TESTBED_FILE, running_addresses

CLIENT = httpx.Client
URLS = {name: f"http://{name}:80" for name in ("mobile", "edge", "cloud", "ledger")}
HEALTH = MobileHealth(
    status="ok", bundle_id="b1", policy="cascade-routing", certificate_id=None, certificate=None,
    degraded=False, shares={},
    audits=AuditReport(share=0, seen=0, differ=0, sent=0, failed=0, dropped=0, waiting=0,
                       bound=None, e_value=None, alarm_at=None),
).model_dump(mode="json")  # fmt: skip
GUESSED = frozenset({"edge", "cloud"})


def compose(*tiers: dict[str, str] | None, asked: list[str] | None = None) -> httpx.MockTransport:
    """Return a network in which only the mobile and the ledger can be reached.

    Each of ``tiers`` is what the mobile reports when it is asked again; the last one stays.
    """
    left = list(tiers)

    def handle(request: httpx.Request) -> httpx.Response:
        host, path = request.url.host, request.url.path
        if asked is not None:
            asked.append(str(request.url))
        if host == "mobile" and path == "/v1/status":
            return httpx.Response(200, json=HEALTH)
        if host == "mobile":
            state = left.pop(0) if len(left) > 1 else left[0]
            return httpx.Response(200, json={"status": "ready", "tiers": state})
        if host == "ledger":
            return httpx.Response(200, json={"status": "ready"})
        raise httpx.ConnectError("refused", request=request)

    return httpx.MockTransport(handle)


@pytest.mark.parametrize(
    ("tiers", "problems"),
    [
        ({"edge": "ready", "cloud": "ready"}, []),
        (
            {"edge": "unreachable", "cloud": "failing"},
            [
                "the edge cannot be reached by the mobile",
                "the cloud fails requests, as the mobile reports",
            ],
        ),
        (
            {"edge": "not ready", "cloud": "asleep"},
            [
                "the edge is not ready, as the mobile reports",
                "the cloud is asleep, as the mobile reports",
            ],
        ),
        ({"edge": "ready"}, []),  # the mode excludes the cloud
        (
            None,
            ["the edge cannot be reached (refused)", "the cloud cannot be reached (refused)"],
        ),
    ],
)
def test_mobile_is_asked_about_tiers_whose_ports_are_not_published(
    tiers: dict[str, str] | None, problems: list[str]
) -> None:
    with httpx.Client(transport=compose(tiers)) as http:
        report = collect(http, URLS, GUESSED)
    assert report.problems == problems


def test_status_shows_what_the_mobile_reports(capsys: pytest.CaptureFixture[str]) -> None:
    with httpx.Client(transport=compose({"edge": "ready"})) as http:
        show(collect(http, URLS, GUESSED))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == [
        "edge    up    ready, as the mobile reports",
        "cloud   –     not used, as the mobile reports",
    ]
    assert lines[-1] == "healthy"


def test_given_addresses_are_not_replaced_by_the_mobiles_report() -> None:
    with httpx.Client(transport=compose({"edge": "ready", "cloud": "ready"})) as http:
        report = collect(http, URLS, {"cloud"})
    assert report.problems == ["the edge cannot be reached (refused)"]


def test_a_tier_is_asked_for_until_it_is_known() -> None:
    unknown, ready = {"edge": "unknown", "cloud": "ready"}, {"edge": "ready", "cloud": "ready"}
    waits: list[float] = []
    with httpx.Client(transport=compose(unknown, unknown, ready)) as http:
        assert as_mobile_sees(http, URLS["mobile"], waits.append) == ready
    assert len(waits) == 2
    with httpx.Client(transport=compose(unknown)) as http:
        assert as_mobile_sees(http, URLS["mobile"], waits.append) == unknown
    assert len(waits) == 2 + PROBE_TRIES


def test_a_tier_that_stopped_while_nothing_was_sent_is_found() -> None:
    """The mobile's first answer is what it knew before; the question makes it probe the tier."""
    old, new = {"edge": "ready", "cloud": "ready"}, {"edge": "ready", "cloud": "unreachable"}
    with httpx.Client(transport=compose(old, new)) as http:
        report = collect(http, URLS, GUESSED)
    assert report.problems == ["the cloud cannot be reached by the mobile"]


def write_facts(folder: Path, pid: object) -> None:
    roles = {name: {"url": f"http://{name}:1", "pid": 7} for name in URLS}
    (folder / TESTBED_FILE).write_text(json.dumps({"roles": roles, "links": {}, "pid": pid}))


def test_addresses_are_those_of_a_running_testbed(tmp_path: Path) -> None:
    assert running_addresses(tmp_path) == {}
    write_facts(tmp_path, os.getpid())
    assert running_addresses(tmp_path) == {name: f"http://{name}:1" for name in URLS}


@pytest.mark.parametrize("pid", [2**22 + 1, 2**80, None, "x", -(2**70)])
def test_file_of_a_killed_testbed_gives_no_address(tmp_path: Path, pid: object) -> None:
    write_facts(tmp_path, pid)
    assert running_addresses(tmp_path) == {}


@pytest.mark.parametrize("content", ["[]", "{}", '{"roles": []}', '{"roles": {"edge": 1}}', "\0"])
def test_damaged_file_gives_no_address(tmp_path: Path, content: str) -> None:
    (tmp_path / TESTBED_FILE).write_text(content)
    assert running_addresses(tmp_path) == {}


def ask(
    monkeypatch: pytest.MonkeyPatch, folder: Path, words: list[str], **environment: str
) -> set[Any]:
    """Return the addresses that the command asks."""
    asked: list[str] = []
    transport = compose({"edge": "ready", "cloud": "ready"}, asked=asked)
    monkeypatch.setattr(httpx, "Client", lambda **_: CLIENT(transport=transport))
    done = CliRunner().invoke(status, ["--state-dir", str(folder), *words], env=environment)
    assert done.exit_code in (0, 1), done.output
    return {address.partition("//")[2].partition("/")[0] for address in asked}


def test_command_uses_the_testbed_of_its_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EDGE", "CLOUD", "LEDGER", "MOBILE"):
        monkeypatch.delenv(f"DIMEE_{name}_URL", raising=False)
    defaults = {f"127.0.0.1:{port}" for port in (8700, 8701, 8702, 8703)}
    assert ask(monkeypatch, tmp_path, []) == defaults
    write_facts(tmp_path, os.getpid())
    assert ask(monkeypatch, tmp_path, []) == {"mobile:1", "edge:1", "cloud:1", "ledger:1"}
    given = ask(monkeypatch, tmp_path, ["--edge-url", "http://e:2"], DIMEE_CLOUD_URL="http://c:3")
    assert given == {"mobile:1", "e:2", "c:3", "ledger:1"}


def test_tier_of_a_testbed_that_ended_is_down_whatever_the_mobile_knew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EDGE", "CLOUD", "LEDGER", "MOBILE"):
        monkeypatch.delenv(f"DIMEE_{name}_URL", raising=False)
    write_facts(tmp_path, os.getpid())
    transport = compose({"edge": "ready", "cloud": "ready"})
    monkeypatch.setattr(httpx, "Client", lambda **_: CLIENT(transport=transport))
    done = CliRunner().invoke(status, ["--state-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "problem      the cloud cannot be reached (refused)" in done.output
