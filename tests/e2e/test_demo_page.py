"""``dimee demo`` names the page, and in a terminal keeps it running until Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tests.support.commands import environment, port_options
from tests.support.paths import BUNDLE
from tests.support.started import started

DIMEE = ("-m", "shared.command", "demo")
PAGE = re.compile(r"open (http://127\.0\.0\.1:\d+/) in a browser")


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    texts = tmp_path / "texts.txt"
    texts.write_text("a gripping, funny film\na dull film\n")
    return [*port_options(), "--bundle", str(BUNDLE), "--texts", str(texts)]


def check_page(printed: str) -> None:
    """Open the page that the demo names, and cut a link on it."""
    found = PAGE.search(printed)
    assert found, printed
    with httpx.Client(base_url=found[1], trust_env=False, timeout=30) as browser:
        assert browser.get("/").headers["content-type"] == "text/html; charset=utf-8"
        links = browser.get("/dashboard/api/state").json()["links"]
        assert {one["hop"] for one in links} == {"mobile-edge", "mobile-cloud"}
        cut = browser.put("/dashboard/api/links/mobile-cloud", json={"spec": "reset"})
        assert cut.json()["outage"] == "reset"
        body = {"text": "a gripping, funny film", "policy": "cloud"}
        assert browser.post("/dashboard/api/classify", json=body).json()["result"]["failed_over"]
        assert len(browser.get("/dashboard/api/requests").json()["requests"]) >= 2


def test_demo_keeps_its_page_until_ctrl_c(tmp_path: Path, options: list[str]) -> None:
    with started(tmp_path / "tmp", *DIMEE, *options, "--keep") as command:
        check_page(command.printed_until("Ctrl-C stops everything"))
        command.process.send_signal(signal.SIGINT)
        assert command.rest() == (0, "stopping …\nstopped.\n")
        assert command.left_behind(frozenset(map(int, options[1:8:2]))) == []


def test_demo_outside_a_terminal_ends_and_says_how_to_see_the_page(
    tmp_path: Path, options: list[str]
) -> None:
    with started(tmp_path / "tmp", *DIMEE, *options) as command:
        status, printed = command.rest()
        assert status == 0
        assert "consistent" in printed
        assert "dimee demo --keep" in printed
        assert PAGE.search(printed)
        assert command.left_behind() == []


def test_demo_in_a_terminal_stays(options: list[str]) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, *DIMEE, *options],
        env=environment({}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    overdue = threading.Timer(120, process.kill)
    overdue.start()
    printed = b""
    try:
        while b"Ctrl-C stops everything" not in printed:
            printed += os.read(ours, 4096)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        while b"stopped." not in printed:
            printed += os.read(ours, 4096)
        assert process.wait(timeout=60) == 0
    finally:
        overdue.cancel()
        process.kill()
        process.wait()
        os.close(ours)
