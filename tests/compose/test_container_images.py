"""Contents of the images, and permissions of their containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.compose

SERVICES = ("ledger", "cloud", "edge", "mobile")
PACKAGES = {
    "ledger": {"shared"},
    "cloud": {"shared", "cloud_server"},
    "edge": {"shared", "edge_server"},
    "mobile": {"shared", "mobile_client"},
}
MOBILE_LIMIT_BYTES = 400_000_000

Run = Callable[[str, list[str]], str]


def python(code: str) -> list[str]:
    return ["python", "-c", code]


def installed(modules: tuple[str, ...]) -> list[str]:
    return python(
        f"import importlib.util as u;print(*[m for m in {modules!r} if u.find_spec(m) is not None])"
    )


@pytest.mark.parametrize("service", SERVICES)
def test_container_is_healthy(containers: dict[str, Any], service: str) -> None:
    containers[service].reload()
    assert containers[service].attrs["State"]["Health"]["Status"] == "healthy"


def test_mobile_image_is_small(containers: dict[str, Any]) -> None:
    assert containers["mobile"].image.attrs["Size"] <= MOBILE_LIMIT_BYTES


@pytest.mark.parametrize("service", SERVICES)
def test_image_contains_its_own_packages_only(run_in: Run, service: str) -> None:
    packages = set(run_in(service, ["ls", "/app"]).split()) - {"bundles", "healthcheck.py"}
    assert packages == PACKAGES[service]


@pytest.mark.parametrize("service", SERVICES)
def test_image_has_no_training_stack_and_no_pip(run_in: Run, service: str) -> None:
    assert run_in(service, installed(("torch", "transformers", "datasets", "pip"))) == ""


@pytest.mark.parametrize("service", ["cloud", "edge", "mobile"])
def test_tiers_have_no_database(run_in: Run, service: str) -> None:
    assert run_in(service, installed(("sqlalchemy", "alembic", "psycopg"))) == ""


def test_mobile_import_loads_no_server(run_in: Run) -> None:
    heavy = ("fastapi", "uvicorn", "starlette", "torch", "transformers", "sqlalchemy")
    code = f"import sys, mobile_client; print(*[m for m in {heavy!r} if m in sys.modules])"
    assert run_in("mobile", python(code)) == ""


@pytest.mark.parametrize("service", SERVICES)
def test_service_runs_without_root_and_without_privileges(
    containers: dict[str, Any], run_in: Run, service: str
) -> None:
    host = containers[service].attrs["HostConfig"]
    assert run_in(service, ["id", "-u"]) == "10001"
    assert host["CapDrop"] == ["ALL"]
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert not host["Privileged"]
    assert host["ReadonlyRootfs"]


@pytest.mark.parametrize("service", SERVICES)
def test_service_refuses_to_start_on_a_public_address_without_tokens(
    run_in: Run, service: str
) -> None:
    module = {"ledger": "shared.ledger.server", "cloud": "cloud_server", "edge": "edge_server"}
    code = f"""
import os, subprocess, sys
settings = os.environ | {{"DIMEE_PUBLISH_ADDRESS": "0.0.0.0", "DIMEE_PORT": "9999"}}
command = [sys.executable, "-m", {module.get(service, "mobile_client")!r}]
done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=60)
print(done.returncode, "DIMEE_TOKENS" in done.stderr, len(done.stderr.splitlines()))
"""
    assert run_in(service, python(code)) == "2 True 1"


@pytest.mark.parametrize("service", SERVICES)
def test_only_state_and_tmp_are_writable(run_in: Run, service: str) -> None:
    code = """
import pathlib
for folder in ("/", "/app", "/opt/dimee", "/etc", "/state", "/tmp"):
    probe = pathlib.Path(folder, "compose-check-probe")
    try:
        probe.touch()
    except OSError:
        continue
    probe.unlink()
    print(folder)
"""
    assert run_in(service, python(code)).split() == ["/state", "/tmp"]


@pytest.mark.parametrize("service", SERVICES)
def test_runtime_telemetry_is_disabled(run_in: Run, service: str) -> None:
    assert run_in(service, python("import os; print(os.environ['ORT_DISABLE_TELEMETRY'])")) == "1"


def test_only_gateway_and_ledger_are_published_on_loopback(containers: dict[str, Any]) -> None:
    published = {
        service: [binding["HostIp"] for bindings in ports.values() for binding in bindings or ()]
        for service, container in containers.items()
        if (ports := container.attrs["NetworkSettings"]["Ports"])
    }
    assert {service: ips for service, ips in published.items() if ips} == {
        "ledger": ["127.0.0.1"],
        "mobile": ["127.0.0.1"],
    }


@pytest.mark.parametrize(("cpus", "workers"), [(0.5, "1"), (1.5, "1")])
def test_workers_follow_the_cpu_quota_of_a_container(
    engine: Any, containers: dict[str, Any], cpus: float, workers: str
) -> None:
    """As ``docker run --cpus`` and the limit of a pod set it; numpy has one thread."""
    code = (
        "import os, numpy; from edge_server.settings import EdgeSettings; "
        "print(EdgeSettings().workers, len(os.listdir('/proc/self/task')))"
    )
    output = engine.containers.run(
        containers["edge"].image.id, python(code), nano_cpus=int(cpus * 1e9), remove=True
    )
    assert output.decode().split() == [workers, "1"]
