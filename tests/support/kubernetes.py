"""The manifests of deploy/kubernetes, rendered by kubectl with secrets made for the test."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.serving.tokens import new_token
from tests.support.paths import REPOSITORY

Manifest = dict[str, Any]
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
OVERLAYS = ("base", "overlays/local", "overlays/edge-cloud")
TIERS = ("mobile", "edge", "cloud")
SERVICES = (*TIERS, "ledger")
needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None,
    reason="kubectl is missing (Debian: apt install kubernetes-client)",
)


def copied(folder: Path, secrets: bool = True) -> Path:
    """Copy deploy/kubernetes without anyone's secrets to ``folder``; return the copy."""
    copy = folder / "deploy" / "kubernetes"
    shutil.copytree(KUBERNETES, copy, ignore=lambda path, _: _secrets_in(path))
    if secrets:
        make_tokens(copy)
        make_secrets(copy)
    return copy


def make_tokens(copy: Path) -> None:
    """Make the tokens that make-secrets.sh would make with one process for each."""
    script = (copy / "make-secrets.sh").read_text(encoding="utf-8")
    folder = copy / "base" / "secrets"
    tokens = re.findall(r"^token (\w+) (.+)$", script, flags=re.M)
    assert len(tokens) == 6
    for name, scopes in tokens:
        secret, _ = new_token(folder / "tokens.jsonl", name, scopes.split())
        (folder / f"{name}.token").write_text(secret, encoding="utf-8")
        (folder / f"{name}.token").chmod(0o600)


def _secrets_in(path: str) -> list[str]:
    if Path(path) != KUBERNETES / "base" / "secrets":
        return []
    return [name for name in os.listdir(path) if name != ".gitignore"]


def make_secrets(copy: Path) -> str:
    """Run make-secrets.sh of a copy of deploy/kubernetes; return its output."""
    run = subprocess.run(
        [copy / "make-secrets.sh"],
        env=os.environ
        | {
            "DIMEE": str(Path(sys.executable).with_name("dimee")),
            "PYTHONPATH": str(REPOSITORY),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def kustomize(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``kubectl kustomize`` in a folder."""
    return subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=120
    )


def rendered(folder: Path) -> list[Manifest]:
    """Return the manifests that ``kubectl apply -k`` would send to a cluster."""
    run = kustomize(folder)
    assert run.returncode == 0, run.stderr
    return [manifest for manifest in yaml.safe_load_all(run.stdout) if manifest]


def named(manifests: Iterable[Manifest], kind: str) -> dict[str, Manifest]:
    """Return the manifests of one kind by name."""
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def workloads(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """Return the StatefulSets and Deployments by name."""
    manifests = list(manifests)
    return named(manifests, "StatefulSet") | named(manifests, "Deployment")


def container(workload: Manifest) -> Manifest:
    """Return the only container of a workload's pods."""
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    found: Manifest = only
    return found


def environment(manifests: Iterable[Manifest], workload: Manifest, pod: str) -> dict[str, str]:
    """Return the variables of a workload's container, as the kubelet would set them for ``pod``.

    Variables without a value in the manifests are an error.
    """
    manifests = list(manifests)
    of_container, variables = container(workload), {}
    for source in of_container.get("envFrom", ()):
        variables |= named(manifests, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    for one in of_container.get("env", ()):
        if "value" in one:
            variables[one["name"]] = one["value"]
        elif "fieldRef" in one["valueFrom"]:
            assert one["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name", one
            variables[one["name"]] = pod
        else:
            key = one["valueFrom"]["secretKeyRef"]
            content = named(manifests, "Secret")[key["name"]]["data"][key["key"]]
            variables[one["name"]] = base64.b64decode(content).decode()
    return variables


def volume_files(manifests: Iterable[Manifest], workload: Manifest) -> dict[str, dict[str, bytes]]:
    """Return the files of each Secret and ConfigMap that a container mounts, by mount path."""
    manifests = list(manifests)
    volumes = {one["name"]: one for one in workload["spec"]["template"]["spec"]["volumes"]}
    found: dict[str, dict[str, bytes]] = {}
    for mount in container(workload)["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        if "secret" in volume:
            data = named(manifests, "Secret")[volume["secret"]["secretName"]]["data"]
            files = {name: base64.b64decode(content) for name, content in data.items()}
            renamed = {item["key"]: item["path"] for item in volume["secret"].get("items", ())}
            files = {renamed.get(name, name): files[name] for name in renamed or files}
        elif "configMap" in volume:
            data = named(manifests, "ConfigMap")[volume["configMap"]["name"]]["data"]
            files = {name: content.encode() for name, content in data.items()}
        else:
            continue
        found[mount["mountPath"]] = files
    return found
