"""No secret of any setting is printed, served or stored."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.commands import dimee, environment
from tests.support.paths import BUNDLE, free_ports

END_S = 120.0
TEXT = "a wonderful film"


COMMANDS: dict[str, list[tuple[str, ...]]] = {
    "database_url": [("shared.ledger.server",), ("shared.command", "ledger", "export", "x.csv")],
    "ledger_url": [("shared.command", "ledger", "summary")],
    "edge_url": [("shared.command", "status")],
    "cloud_url": [("mobile_client",)],
    "token": [("shared.command", "classify", TEXT)],
}
"""Commands that cannot start with a wrong value of a setting."""


class Plants:
    """Makes secrets, and finds them again."""

    def __init__(self) -> None:
        self._number = itertools.count()
        self.made: list[str] = []

    def secret(self) -> str:
        self.made.append(f"plant{next(self._number)}x8s3cr3t")
        return self.made[-1]

    def url(self, address: str, path: bool = False) -> str:
        """Return an address with secrets in user and password, and perhaps in its path."""
        scheme, _, host = address.partition("://")
        url = f"{scheme}://{self.secret()}:{self.secret()}@{host}"
        if path:
            url += f"/{self.secret()}"
        return url

    def found_in(self, where: str, content: str) -> list[str]:
        return [f"{secret} in {where}" for secret in self.made if secret in content]

    def found_in_files(self, folder: Path) -> list[str]:
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert files
        return [
            problem
            for file in files
            for problem in self.found_in(
                f"{file.name}: {file.name}", file.read_bytes().decode("latin-1")
            )
        ]


@pytest.fixture
def plants() -> Plants:
    return Plants()


@contextmanager
def service(module: str, settings: dict[str, object], printed: list[str]) -> Iterator[str]:
    """Run a service until the end of the block; yield its address. Its output is ``printed``."""
    port = free_ports(1)[0]
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        env=environment(settings | {"port": port, "log_level": "debug"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if "Application startup complete" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert ready.wait(END_S)
        assert process.poll() is None, "".join(printed)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(END_S)
        reader.join(END_S)


def served(url: str, request_id: str = "none") -> str:
    """Return everything that a gateway or ledger answers, with heads."""
    answers = []
    with httpx.Client(base_url=url, trust_env=False, timeout=60.0) as http:
        for path in (
            "/readyz", "/healthz", "/v1/status", "/v1/bundle", "/openapi.json", "/docs", "/none",
            "/v1/summary", "/v1/verify", "/v1/requests", "/v1/last-requests",
            f"/v1/requests/{request_id}",
        ):  # fmt: skip
            answers.append(http.get(path))
        for body in (
            {"texts": [TEXT], "policy": "cloud"},
            {"texts": [TEXT, TEXT], "policy": "edge"},
            {"texts": []},
            {"texts": [TEXT], "policy": "none"},
        ):
            answers.append(http.post("/v1/classify", json=body))
    return "".join(f"{answer.status_code} {answer.headers} {answer.text}\n" for answer in answers)


def output(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


@pytest.mark.long
def test_run_with_secrets_in_every_setting(plants: Plants, tmp_path: Path) -> None:
    """Tiers refuse connections; the ledger works, and its address has a password."""
    nowhere = [f"http://127.0.0.1:{port}" for port in free_ports(2)]
    state, printed, found = tmp_path / "state", [], []
    with service("shared.ledger.server", {"state_dir": state}, printed) as ledger:
        settings: dict[str, object] = {
            "bundle": BUNDLE,
            "state_dir": state,
            "ledger_url": plants.url(ledger),
            "edge_url": plants.url(nowhere[0], path=True),
            "cloud_url": plants.url(nowhere[1], path=True),
            "token": plants.secret(),
            "fail_over": json.dumps(["edge", "cloud"]),
            "retries": 0,
        }
        with service("mobile_client", settings, printed) as gateway:
            answers = served(gateway)
            assert "503 " in answers
            assert nowhere[1] in answers
            found += plants.found_in("the gateway's answers", answers)
            for command in (
                ("status",),
                ("status", "--json"),
                ("classify", TEXT, "--policy", "cloud"),
                ("classify", TEXT, "--policy", "mobile", "--json"),
                ("ledger", "verify"),
                ("ledger", "summary", "--json"),
                ("ledger", "show", "none"),
                ("explain", "none"),
                ("whatif", "--last", "5"),
                ("prices", "measure", "--url", plants.url(gateway), "--out", str(tmp_path / "p")),
                ("load", "--url", plants.url(gateway), "--requests", "2", "--out", str(tmp_path)),
            ):
                done = dimee(*command, **settings | {"mobile_url": plants.url(gateway)})
                assert "Traceback" not in output(done), output(done)
                found += plants.found_in(" ".join(command[:2]), output(done))
        found += plants.found_in("the ledger's answers", served(ledger))
    found += plants.found_in("logs", "".join(printed))
    found += plants.found_in_files(tmp_path)
    assert found == []


def test_ledger_that_refuses_is_named_without_secrets(plants: Plants, tmp_path: Path) -> None:
    printed: list[str] = []
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    settings: dict[str, object] = {
        "bundle": BUNDLE,
        "state_dir": tmp_path / "state",
        "policy": "mobile",
        "ledger_url": plants.url(nowhere, path=True),
        "undelivered_warning_s": 0.1,
    }
    found = []
    with service("mobile_client", settings, printed) as gateway:
        found += plants.found_in("the gateway's answers", served(gateway))
    for command in (("summary",), ("verify",), ("show", "none")):
        done = dimee("ledger", *command, status=2, **settings)
        assert nowhere in output(done)
        found += plants.found_in(command[0], output(done))
    found += plants.found_in("logs", "".join(printed)) + plants.found_in_files(tmp_path)
    assert found == []


def bad_settings(plants: Plants) -> list[dict[str, object]]:
    """Return settings with which something cannot start."""
    port = free_ports(1)[0]
    user = f"{plants.secret()}:{plants.secret()}"
    query = f"sslpassword={plants.secret()}"
    return [
        {"database_url": f"postgresql://{user}@127.0.0.1:{port}/ledger?{query}"},
        {"database_url": f"postgresql://{user}@no.such.host.invalid/ledger?{query}"},
        {"database_url": f"postgresql://{user}@127.0.0.1:{user}/ledger"},
        {"database_url": f"mysql://{user}@127.0.0.1/ledger?password={plants.secret()}"},
        {"database_url": f"{user}@127.0.0.1/ledger"},
        {"database_url": f"postgresql://127.0.0.1:{port}/ledger?{plants.secret()}=1"},
        {"ledger_url": f"http://{user}@[127.0.0.1/{plants.secret()}"},
        {"ledger_url": f"{user}@127.0.0.1:{port}"},
        {"edge_url": f"ftp://{user}@127.0.0.1/{plants.secret()}?{query}"},
        {"edge_url": f"http://{user}@127.0.0.1:{plants.secret()}/"},
        {"cloud_url": f"//{user}@127.0.0.1?{query}"},
        {"cloud_url": f"http://{user}@127.0.0.1/?{query}#{plants.secret()}"},
        {"token": f"{plants.secret()} {plants.secret()}"},
        {"token": plants.secret(), "token_file": os.devnull},
    ]


@pytest.mark.long
def test_failing_starts_show_no_secret(plants: Plants, tmp_path: Path) -> None:
    found = []
    for number, settings in enumerate(bad_settings(plants)):
        state = tmp_path / str(number)
        settings |= {"state_dir": state, "bundle": BUNDLE, "policy": "cloud", "retries": 0}
        commands = next(commands for name, commands in COMMANDS.items() if name in settings)
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", *command],
                env=environment(settings),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=END_S,
                check=False,
            )
            shown = output(done)
            assert shown
            assert "Traceback" not in shown, f"{command} {next(iter(settings))}\n{shown}"
            found += plants.found_in(f"{number} {command}", shown)
    assert found == []
