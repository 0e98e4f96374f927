"""Fixtures for the containers of deploy/compose-check.sh; without them the tests are skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest


@pytest.fixture(scope="session")
def project() -> str:
    """The compose project of the containers."""
    name = os.environ.get("DIMEE_CHECK_PROJECT")
    if not name:
        pytest.skip("run deploy/compose-check.sh, which starts the containers")
    return name


@pytest.fixture(scope="session")
def engine(project: str) -> Iterator[Any]:
    """The container engine."""
    import docker

    with closing(docker.from_env()) as client:
        yield client


@pytest.fixture(scope="session")
def containers(project: str, engine: Any) -> dict[str, Any]:
    """The running containers by service."""
    found = engine.containers.list(filters={"label": f"com.docker.compose.project={project}"})
    return {container.labels["com.docker.compose.service"]: container for container in found}


@pytest.fixture(scope="session")
def run_in(containers: dict[str, Any]) -> Callable[[str, list[str]], str]:
    """A function that runs a command in the container of a service and returns its output."""

    def run(service: str, command: list[str]) -> str:
        status, output = containers[service].exec_run(command)
        assert status == 0, output.decode()
        return str(output.decode().strip())

    return run


@pytest.fixture(scope="session")
def gateway(project: str) -> Iterator[httpx.Client]:
    """An HTTP client of the mobile's gateway."""
    with _published("DIMEE_COMPOSE_MOBILE_PORT") as client:
        yield client


@pytest.fixture(scope="session")
def ledger(project: str) -> Iterator[httpx.Client]:
    """An HTTP client of the ledger."""
    with _published("DIMEE_COMPOSE_LEDGER_PORT") as client:
        yield client


def _published(variable: str) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://127.0.0.1:{os.environ[variable]}", trust_env=False, timeout=30.0
    )
