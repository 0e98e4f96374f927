"""Ray Serve accepts the tiers' deployments and the config files; needs ray, but no cluster."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from starlette.testclient import TestClient

from cloud_server.app import create_app
from cloud_server.settings import CloudSettings
from shared.errors import InvalidInput
from shared.ray_serve.autoscaling import BUSY_SHARE, QUEUE_WAIT_MS
from shared.ray_serve.options import RayOptions
from shared.ray_serve.replica_slots import claim_slot
from tests.support.paths import REPOSITORY

serve = pytest.importorskip("ray.serve", reason="the extra ray is not installed")
FILES = sorted((REPOSITORY / "deploy" / "ray").glob("serve-*.yaml"))


@pytest.mark.parametrize("tier", ["edge", "cloud"])
@pytest.mark.parametrize("max_replicas", [None, 3])
def test_ray_accepts_the_deployment(tier: str, max_replicas: int | None) -> None:
    build = importlib.import_module(f"{tier}_server.ray_app").build
    application = build(RayOptions(max_replicas=max_replicas))
    assert isinstance(application, serve.Application)


@pytest.mark.parametrize("tier", ["edge", "cloud"])
def test_ray_validates_the_arguments_by_the_builders_annotation(tier: str) -> None:
    build = importlib.import_module(f"{tier}_server.ray_app").build
    (parameter,) = inspect.signature(build).parameters.values()
    assert inspect.isclass(parameter.annotation)
    assert issubclass(parameter.annotation, BaseModel)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_config_file_has_rays_schema(file: Path) -> None:
    schema = importlib.import_module("ray.serve.schema").ServeDeploySchema
    config = yaml.safe_load(file.read_text())
    assert schema.model_validate(config).applications[0].name == file.stem.removeprefix("serve-")
    config["applications"][0]["import_pth"] = config["applications"][0].pop("import_path")
    with pytest.raises(ValueError, match="import_p"):
        schema.model_validate(config)


def test_autoscaling_policy_runs_without_dimee() -> None:
    """Ray copies the policy's module to its controller, which need not import dimee."""
    config = importlib.import_module("ray.serve.config")
    policy = config.AutoscalingPolicy(
        policy_function="shared.ray_serve.autoscaling:QueueWaitPolicy"
    )
    code = (
        "import sys; from ray import cloudpickle;"
        "kind = cloudpickle.loads(sys.stdin.buffer.read());"
        "print(kind(target_wait_ms=5.0).__class__.__name__, 'shared' in sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        input=policy.get_serialized_policy_def(),
        capture_output=True,
        check=True,
    )
    assert loaded.stdout.split() == [b"QueueWaitPolicy", b"False"]


def test_replica_has_its_slots_name_and_reports_its_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"STATE_DIR": str(tmp_path), "LEDGER_URL": "off", "REPLICA": "n7"}.items():
        monkeypatch.setenv(f"DIMEE_{name}", value)
    deployment = importlib.import_module("shared.ray_serve.deployment")
    monkeypatch.setattr(deployment, "tune_process", lambda: None)
    options = RayOptions(host="127.0.0.1")
    replica = deployment.TierReplica("cloud", create_app, CloudSettings, options)
    with TestClient(replica.__serve_build_asgi_app__()) as http:
        assert http.get("/readyz").json()["replica"] == "n7-0"
        attempt = {"request_id": "r1", "attempt_id": "a1", "text": "a fine film"}
        assert http.post("/v1/infer", json=attempt).headers["dimee-replica"] == "n7-0"
        stats = replica.record_autoscaling_stats()
        assert stats.keys() == {QUEUE_WAIT_MS, BUSY_SHARE}
        assert 0 < stats[BUSY_SHARE] <= 1
        assert claim_slot(tmp_path, "cloud").number == 1
    replica.__del__()
    assert claim_slot(tmp_path, "cloud").number == 0


def test_replica_that_others_can_reach_needs_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMEE_STATE_DIR", str(tmp_path))
    deployment = importlib.import_module("shared.ray_serve.deployment")
    with pytest.raises(InvalidInput, match="no tokens are set"):
        deployment.TierReplica("cloud", create_app, CloudSettings, RayOptions())
