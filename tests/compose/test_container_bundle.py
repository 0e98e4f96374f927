"""A bundle mounted with DIMEE_COMPOSE_BUNDLE, while variables of the commands have other values."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.bundle.loading import load_bundle
from tests.support.containers import classify, recorded_requests, verify_ledger
from tests.support.paths import BUNDLE, REPOSITORY

pytestmark = pytest.mark.compose
PORTS = {"mobile": 8701, "edge": 8702, "cloud": 8703}
READY = """
import json, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
ready = json.load(opener.open("http://127.0.0.1:{port}/readyz"))
print(ready["bundle_id"], ready["ledger"])
"""


@pytest.fixture(scope="module")
def mounted() -> Path:
    """The folder of the mounted bundle."""
    path = os.environ.get("DIMEE_COMPOSE_BUNDLE")
    if not path:
        pytest.skip("deploy/compose-check.sh mounts a bundle after the other tests")
    return Path(path)


@pytest.mark.parametrize("service", PORTS)
def test_service_runs_the_mounted_bundle(
    run_in: Callable[[str, list[str]], str], mounted: Path, service: str
) -> None:
    expected = load_bundle(mounted).bundle_id
    assert expected != load_bundle(BUNDLE).bundle_id
    code = READY.format(port=PORTS[service])
    assert run_in(service, ["python", "-c", code]) == f"{expected} None"


@pytest.mark.parametrize("policy", PORTS)
def test_answers_and_ledger_have_the_mounted_bundle(
    gateway: httpx.Client, ledger: httpx.Client, mounted: Path, policy: str
) -> None:
    before = recorded_requests(ledger)
    (result,) = classify(gateway, ["a film that stays with you"], policy)
    assert (result["tier"], result["label"]) == (policy, "positive")
    report = verify_ledger(ledger, before + 1)
    assert report["total_findings"] == 0, report
    entries = ledger.get(f"/v1/requests/{result['request_id']}").json()["entries"]
    assert {entry["bundle_id"] for entry in entries} == {load_bundle(mounted).bundle_id}


def test_variables_of_the_commands_do_not_reach_the_containers(containers: dict[str, Any]) -> None:
    """deploy/compose-check.sh exports values with which nothing would work."""
    for name in PORTS:
        values = dict(line.split("=", 1) for line in containers[name].attrs["Config"]["Env"])
        assert values["DIMEE_LEDGER_URL"] in (
            "http://ledger:8700",
            "http://link-mobile-ledger:8710",
        )
        assert "DIMEE_BUNDLE" not in values
        assert values.get("DIMEE_POLICY", "") == ""


def run_once(engine: Any, service: str, mounts: dict[Path, str], **options: Any) -> tuple[int, str]:
    """Run a container of a service until it ends; return its exit status and what it printed."""
    container = engine.containers.create(
        f"dimee-{service}:check",
        volumes={str(path): {"bind": target, "mode": "ro"} for path, target in mounts.items()},
        **options,
    )
    try:
        container.start()
        return container.wait(timeout=60)["StatusCode"], container.logs().decode()
    finally:
        container.remove(force=True)


@pytest.mark.parametrize("service", PORTS)
@pytest.mark.parametrize("mode", [0o700, 0o711])
def test_unreadable_bundle_ends_the_start_with_one_sentence(
    engine: Any, mounted: Path, tmp_path: Path, service: str, mode: int
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(mounted, folder)
    for file in folder.iterdir():
        file.chmod(0o600)
    folder.chmod(mode)
    loopback = {"DIMEE_PUBLISH_ADDRESS": "127.0.0.1"}
    status, said = run_once(engine, service, {folder: "/bundle"}, environment=loopback)
    assert status == 2
    assert "chmod -R a+rX" in said
    assert len(said.splitlines()) == 1


def test_mobile_runs_a_mounted_policy(engine: Any, mounted: Path) -> None:
    """The settings are those of the how-to; the edge and the cloud are not reached."""
    code = """
from mobile_client import MobileClient
with MobileClient() as mobile:
    answer = mobile.classify("a gripping, funny film")
print(answer.label, answer.tier)
"""
    settings = {
        "DIMEE_POLICY": "length_and_margin:LengthAndMargin",
        "PYTHONPATH": "/app:/policies",
    }
    policies = REPOSITORY / "docs" / "how-to" / "examples"
    status, said = run_once(
        engine,
        "mobile",
        {mounted: "/bundle", policies: "/policies"},
        environment=settings,
        command=["python", "-c", code],
    )
    assert (status, said.split()[:2]) == (0, ["positive", "mobile"]), said
