"""A real Prometheus process that scrapes a testbed with the shipped configuration."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from testbed.processes.processes import Testbed
from tests.support.paths import REPOSITORY, free_ports

OBSERVABILITY = REPOSITORY / "deploy" / "observability"
SHIPPED_INTERVAL = "5s"
SERVICES = ("mobile", "edge", "cloud", "ledger")
WAIT_S = 90.0


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=30)

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        answer = self._http.get("/api/v1/query", params={"query": expr}).json()
        assert answer["status"] == "success", (expr, answer)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def values(self, expr: str) -> list[float]:
        """Return the finite values of an instant query."""
        numbers = (float(series["value"][1]) for series in self.query(expr))
        return [number for number in numbers if math.isfinite(number)]

    def targets(self) -> dict[str, tuple[str, str]]:
        """Return the health of each scraped service, and its last error."""
        answer = self._http.get("/api/v1/targets", params={"state": "active"}).json()
        return {
            target["labels"]["service"]: (target["health"], target["lastError"])
            for target in answer["data"]["activeTargets"]
        }

    def wait_until(self, reached: Callable[[], bool], what: Callable[[], object]) -> None:
        """Wait until a condition holds; fail with ``what`` after `WAIT_S`."""
        until = time.monotonic() + WAIT_S
        while not reached():
            assert time.monotonic() < until, what()
            time.sleep(0.25)

    def wait_for_targets(self) -> None:
        """Wait until every service has been scraped."""

        def all_up() -> bool:
            return {name: health for name, (health, _) in self.targets().items()} == dict.fromkeys(
                SERVICES, "up"
            )

        self.wait_until(all_up, self.targets)

    def close(self) -> None:
        self._http.close()


@contextmanager
def prometheus(
    testbed: Testbed, folder: Path, token_folder: Path = OBSERVABILITY / "prometheus"
) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped files, as the compose file mounts them.

    Only the services' addresses and the scrape interval (one second) are replaced.
    """
    folder.mkdir(parents=True)
    text = (OBSERVABILITY / "prometheus.yml").read_text(encoding="utf-8")
    for name in SERVICES:
        role = testbed.roles[name]
        shipped = (
            f'"{name}:{ {"ledger": 8700, "mobile": 8701, "edge": 8702, "cloud": 8703}[name] }"'
        )
        assert text.count(shipped) == 1
        text = text.replace(shipped, f'"127.0.0.1:{role.port}"')
    assert text.count(SHIPPED_INTERVAL) == 2
    text = text.replace(SHIPPED_INTERVAL, "1s").replace("scrape_timeout: 4s", "scrape_timeout: 1s")
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")
    (folder / "rules").symlink_to(OBSERVABILITY / "rules")
    (folder / "prometheus").symlink_to(token_folder)
    with prometheus_with(folder) as server:
        yield server


@contextmanager
def prometheus_with(folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the configuration ``prometheus.yml`` of ``folder``."""
    (port,) = free_ports(1)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                "--config.file=prometheus.yml",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        _wait_ready(process, port, folder / "log")
        yield server
    finally:
        server.close()
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"http://127.0.0.1:{port}/-/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())
