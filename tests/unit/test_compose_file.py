"""docker-compose.yml and the Dockerfile: no root, read-only file systems, no open port."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.settings import MOUNTED_BUNDLE
from tests.support.paths import REPOSITORY

SERVICES = ("ledger", "cloud", "edge", "mobile")
STAGES = {"runtime", "tier", "relay", *SERVICES}


def services(name: str) -> dict[str, Any]:
    content = yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))
    found: dict[str, Any] = content["services"]
    return found


def test_compose_files_have_every_service() -> None:
    assert services("docker-compose.yml").keys() == set(SERVICES)
    assert services("deploy/compose.auth.yml").keys() == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_a_read_only_file_system_and_no_capabilities(name: str) -> None:
    service = services("docker-compose.yml")[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.keys().isdisjoint(
        {"privileged", "cap_add", "user", "network_mode", "pid", "ipc", "devices"}
    )
    state, *others = service["volumes"]
    assert state == f"{name}-state:/state"
    bundle = {
        "type": "bind",
        "source": "${DIMEE_COMPOSE_BUNDLE:-/dev/null}",
        "target": str(MOUNTED_BUNDLE),
        "read_only": True,
    }
    assert others == ([] if name == "ledger" else [bundle])


@pytest.mark.parametrize("name", SERVICES)
def test_service_knows_the_address_of_its_published_port(name: str) -> None:
    service = services("docker-compose.yml")[name]
    address = "${DIMEE_COMPOSE_PUBLISH_ADDRESS:-127.0.0.1}"
    assert service["environment"]["DIMEE_PUBLISH_ADDRESS"] == address
    assert all(port.startswith(f"{address}:") for port in service.get("ports", []))
    assert ("ports" in service) == (name in ("ledger", "mobile"))


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_gets_only_its_own_token(name: str) -> None:
    service = services("deploy/compose.auth.yml")[name]
    assert service["environment"]["DIMEE_TOKENS"] == "/auth/accepted/tokens.jsonl"
    folders = [
        re.sub(r"^\$\{DIMEE_COMPOSE_AUTH_DIR:\?[^}]*\}/", "", one) for one in service["volumes"]
    ]
    own = [] if name == "ledger" else [f"{name}:/auth/own:ro"]
    assert folders == ["accepted:/auth/accepted:ro", *own]


def test_images_run_without_root() -> None:
    text = Path(REPOSITORY / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    parts = re.split(r"^FROM (\S+) AS (\S+)$", text, flags=re.M)
    stages = {parts[i + 1]: (parts[i], parts[i + 2]) for i in range(1, len(parts), 3)}
    assert re.findall(r"^USER (.+)$", stages["runtime"][1], re.M) == ["10001:10001"]
    for name in (*SERVICES, "relay"):
        base, body = stages[name]
        assert base in STAGES, f"{name} is not built on the runtime without root"
        assert "USER " not in body


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_monitoring_is_pinned_limited_read_only_and_on_loopback(name: str) -> None:
    service = services("deploy/compose.observability.yml")[name]
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    state, *others = service["volumes"]
    assert state.startswith(f"{name}-state:/")
    assert all(mount.endswith(":ro") for mount in others)
    assert service["healthcheck"]["test"][0] == "CMD"
