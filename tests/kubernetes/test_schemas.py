"""The manifests are valid for Kubernetes, strictly: no unknown field, no wrong type."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shared.serving.tokens import find, read_tokens
from tests.support.kubernetes import (
    OVERLAYS,
    Manifest,
    copied,
    kustomize,
    make_secrets,
    needs_kubectl,
    rendered,
)

pytestmark = needs_kubectl
OLDEST = "1.29"
"""Oldest version that the how-to names."""


def validate(file: Path, version: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``kubernetes-validate --strict``; without a version, for the newest that it knows."""
    pytest.importorskip("kubernetes_validate", reason="the extra test has kubernetes-validate")
    options = ["--kubernetes-version", version] if version else []
    return subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", *options, str(file)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def errors(manifests: list[Manifest], folder: Path, version: str | None = None) -> list[str]:
    """Return the errors and warnings of ``kubernetes-validate`` for these manifests."""
    file = folder / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(manifests), encoding="utf-8")
    run = validate(file, version)
    lines = [line for line in run.stdout.splitlines() if line]
    assert len(lines) == len(manifests), (run.stdout, run.stderr)
    found = [line for line in lines if not line.startswith("INFO ")]
    assert bool(run.returncode) == any(line.startswith("ERROR ") for line in found)
    return found


@pytest.mark.parametrize("version", [OLDEST, None], ids=["oldest", "newest"])
def test_manifests_are_valid(
    manifests: list[Manifest], tmp_path: Path, version: str | None
) -> None:
    assert errors(manifests, tmp_path, version) == []


def test_volume_of_an_edge_node_is_valid(deployment: Path, tmp_path: Path) -> None:
    text = (deployment / "overlays/edge-cloud/volume.yaml").read_text(encoding="utf-8")
    volume = yaml.safe_load(text.replace("NODE", "edge-node-1").replace("NUMBER", "0"))
    assert volume["spec"]["local"]["path"] == "/var/lib/dimee/0"
    assert errors([volume], tmp_path) == []


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("terminationGracePeriodSeconds:", "terminationGracePeriod:", "terminationGracePeriod"),
        ("podManagementPolicy: Parallel", "podManagementPolicies: Parallel", "podManagementPol"),
        ("runAsUser: 10001", "runAsUser: dimee", "'dimee' is not of type"),
        ("failureThreshold: 90", "failureThreshold: many", "'many' is not of type"),
        ("averageValue: 5m", "averageValue: [10]", "averageValue"),
    ],
)
def test_planted_error_is_found(
    deployment: Path, tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    """A wrong field or a wrong type in a file of the base is found in what kubectl renders."""
    copy = tmp_path / "kubernetes"
    shutil.copytree(deployment, copy)
    file = copy / "base" / "edge.yaml"
    text = file.read_text(encoding="utf-8")
    assert text.count(right) == 1
    file.write_text(text.replace(right, wrong), encoding="utf-8")
    of_edge = [one for one in rendered(copy / "base") if one["metadata"]["name"] == file.stem]
    found = errors(of_edge, tmp_path)
    assert len(found) == 1
    assert message in found[0]
    assert "/edge against version" in found[0]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_missing_secrets_are_an_error_that_names_the_file(tmp_path: Path, overlay: str) -> None:
    copy = copied(tmp_path, secrets=False)
    run = kustomize(copy / overlay)
    assert run.returncode != 0
    assert run.stdout == ""
    assert "secrets/" in run.stderr


def test_deleted_secrets_are_made_again_and_all_else_is_kept(
    deployment: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "deploy" / "kubernetes"
    shutil.copytree(deployment, copy)
    secrets = copy / "base" / "secrets"
    for file in secrets.iterdir():
        assert file.name == ".gitignore" or file.stat().st_mode & 0o077 == 0
    before = {file.name: file.read_bytes() for file in secrets.iterdir()}
    (secrets / "edge.crt").unlink()
    (secrets / "edge.token").unlink()
    assert make_secrets(copy).startswith("deploy/kubernetes/base/secrets is complete")
    after = {file.name: file.read_bytes() for file in secrets.iterdir()}
    assert after.keys() == before.keys()
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"edge.crt", "edge.key", "edge.token", "tokens.jsonl"}
    token = find(read_tokens(secrets / "tokens.jsonl"), after["edge.token"].strip())
    assert token is not None
    assert (token.name, token.scopes) == ("edge", ("ledger:write",))


def test_repository_holds_no_secret() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--", "deploy/kubernetes/base/secrets"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert tracked.stdout.split() == ["deploy/kubernetes/base/secrets/.gitignore"]
