"""The locustfile without its web page, against a small real server, where Locust is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shared.domain import InputText
from testbed.processes.children import watched
from tests.support.descriptions import PAIRS, with_samples
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None,
    reason="Locust is not installed: pip install -e '.[locust]'",
)


class Shedding(BaseHTTPRequestHandler):
    """A gateway that refuses every request and records its body."""

    bodies: list[dict[str, Any]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert self.path == "/v1/bundle"
        content = with_samples(PAIRS, InputText("a", "b", "yes")).model_dump_json().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        assert self.path == "/v1/classify"
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        content = b'{"error": {"code": "overloaded", "message": "try later"}}'
        self.send_response(429)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    bodies: list[dict[str, Any]] = []
    handler = type("Handler", (Shedding,), {"bodies": bodies})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}", bodies
        one.shutdown()
        thread.join()


def locust(
    host: str, until: Callable[[], bool], log: Path, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run Locust until ``until`` is true; its log goes to ``log``.

    A run time would begin while Locust is still starting, and end before it on a busy machine.
    """
    options = ["--headless", "-u", "4", "-r", "4", "--json", "--host", host]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", "testbed/load/locustfile.py", *options],
            cwd=REPOSITORY,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    give_up = time.monotonic() + 120
    with watched(process.pid):
        while not until() and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.05)
        process.terminate()
        printed, _ = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, printed, log.read_text())


def test_users_send_the_requests_of_dimee_load(
    server: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    host, bodies = server
    settings = {"DIMEE_LOAD_RATE": "20", "DIMEE_LOAD_PATH": "edge"}
    found = locust(host, lambda: len(bodies) > 60, tmp_path / "log", **settings)
    tables = json.loads(found.stdout)
    assert [one["name"] for one in tables] == ["/v1/classify [shed]"], found.stderr
    assert tables[0]["num_failures"] == tables[0]["num_requests"] > 40, "all are shed and counted"
    assert len(bodies) >= tables[0]["num_requests"]
    expected = {"policy": "edge", "texts": ["a"], "pairs": ["b"]}
    assert all(expected.items() <= one.items() for one in bodies)
    assert "overloaded" in found.stderr


def test_remote_host_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = locust("http://load.example", lambda: "--allow-remote" in log.read_text(), log)
    assert "--allow-remote" in found.stderr
    assert json.loads(found.stdout or "[]") == []
