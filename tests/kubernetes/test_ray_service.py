"""Serve config files and the KubeRay manifest of deploy/ray.

The schema of a RayService is in no package: its own fields are compared with the list below, which
is from KubeRay's CRD (ray.io_rayservices.yaml, v1); its pods are checked as Pods of Kubernetes.
"""

from __future__ import annotations

import ast
import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_server.settings import CloudSettings
from shared.connections import GRACEFUL_STOP_S, SERVER_IDLE_S
from shared.ray_serve.options import STOP_S, RayOptions
from shared.settings import is_loopback
from tests.support.paths import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "ray"
MANIFESTS = list(yaml.safe_load_all((FOLDER / "rayservice.yaml").read_text()))
SERVICE = MANIFESTS[0]
SERVICE_NAME = SERVICE["metadata"]["name"]
CLUSTER = SERVICE["spec"]["rayClusterConfig"]
CONFIGS = {
    name: yaml.safe_load((FOLDER / f"serve-{name}.yaml").read_text()) for name in ("edge", "cloud")
} | {"rayservice": yaml.safe_load(SERVICE["spec"]["serveConfigV2"])}
FIELDS = {
    "spec": {"serveConfigV2", "rayClusterConfig"},
    "cluster": {
        "rayVersion",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "authOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "head": {"rayStartParams", "template"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}
"""Fields of a RayService that the manifest uses."""


def groups() -> dict[str, dict[str, Any]]:
    return {"head": CLUSTER["headGroupSpec"]} | {
        group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]
    }


def validate(manifest: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``kubernetes-validate --strict`` on one manifest."""
    pytest.importorskip("kubernetes_validate", reason="the extra test has kubernetes-validate")
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump(manifest))
    return subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", str(file)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def as_pod(group: dict[str, Any]) -> dict[str, Any]:
    template = copy.deepcopy(group["template"])
    template.setdefault("metadata", {})["name"] = "pod"
    return {"apiVersion": "v1", "kind": "Pod", **template}


def test_pods_and_policies_are_valid(tmp_path: Path) -> None:
    for manifest in [*map(as_pod, groups().values()), *MANIFESTS[1:]]:
        checked = validate(manifest, tmp_path)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_planted_error_in_a_pod_is_found(tmp_path: Path) -> None:
    pod = as_pod(groups()["replicas"])
    pod["spec"]["containers"][0]["imagePullPolcy"] = "Always"
    checked = validate(pod, tmp_path)
    assert checked.returncode != 0
    assert "imagePullPolcy" in checked.stdout + checked.stderr


def test_fields_of_the_ray_service_are_known() -> None:
    assert (SERVICE["apiVersion"], SERVICE["kind"]) == ("ray.io/v1", "RayService")
    assert set(SERVICE["spec"]) <= FIELDS["spec"]
    assert set(CLUSTER) <= FIELDS["cluster"]
    assert set(CLUSTER["headGroupSpec"]) <= FIELDS["head"]
    for group in CLUSTER["workerGroupSpecs"]:
        assert set(group) <= FIELDS["worker"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups().values():
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


@pytest.mark.parametrize("name", CONFIGS)
def test_config_files_match_the_options_and_the_proxy(name: str) -> None:
    config = CONFIGS[name]
    http = config["http_options"]
    assert http["keep_alive_timeout_s"] == SERVER_IDLE_S
    assert http["request_timeout_s"] == GRACEFUL_STOP_S
    (application,) = config["applications"]
    options = RayOptions.model_validate(application["args"])
    # else the replicas would not require tokens, or require them without a need
    assert options.host == http["host"]
    module, _, function = application["import_path"].partition(":")
    code = ast.parse((REPOSITORY / f"{module.replace('.', '/')}.py").read_text())
    assert function in [node.name for node in code.body if isinstance(node, ast.FunctionDef)]
    # ends of a path after a prefix would not be the tier's own paths
    assert application["route_prefix"] == "/"


def test_only_the_cluster_is_open_to_other_machines() -> None:
    assert is_loopback(CONFIGS["edge"]["http_options"]["host"])
    assert is_loopback(CONFIGS["cloud"]["http_options"]["host"])
    assert CLUSTER["authOptions"] == {"mode": "token"}


def test_pods_have_the_settings_of_a_cloud_with_tokens() -> None:
    for group in groups().values():
        (container,) = group["template"]["spec"]["containers"]
        names = {variable["name"] for variable in container["env"]}
        own = {name.removeprefix("DIMEE_").lower() for name in names if name.startswith("DIMEE_")}
        assert own <= set(CloudSettings.model_fields)
        assert "tokens" in own
        mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
        for variable in container["env"]:
            if variable["value"].startswith("/"):
                assert any(variable["value"].startswith(path) for path in mounted), variable
        grace_s = group["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace_s >= STOP_S


def test_pods_are_admitted_to_a_restricted_namespace() -> None:
    """Also with the container that KubeRay adds to the head's pod for Ray's autoscaler.

    That container has the security context of ``autoscalerOptions``, or none
    (``mergeAutoscalerOverrides`` in KubeRay's ``pod.go``); the Pod Security Standard ``restricted``
    of the namespace then refuses the head.
    """
    namespace = yaml.safe_load((REPOSITORY / "deploy/kubernetes/base/namespace.yaml").read_text())
    assert namespace["metadata"]["name"] == SERVICE["metadata"]["namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    contexts = [CLUSTER["autoscalerOptions"]["securityContext"]]
    for group in groups().values():
        spec = group["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        contexts += [container["securityContext"] for container in spec["containers"]]
    for context in contexts:
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_operator_reaches_the_cluster_however_it_is_installed() -> None:
    """Labels of its pods by KubeRay's chart and by its kustomization."""
    (policy,) = [one for one in MANIFESTS[1:] if one["metadata"]["name"] == SERVICE_NAME]
    (selector,) = [
        peer["podSelector"]["matchLabels"]
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
        if "namespaceSelector" in peer
    ]
    for name in ("kuberay-operator", "kuberay"):
        labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "kuberay-operator"}
        assert selector.items() <= labels.items()


def test_a_worker_has_room_for_its_replicas() -> None:
    options = RayOptions.model_validate(CONFIGS["rayservice"]["applications"][0]["args"])
    (group,) = CLUSTER["workerGroupSpecs"]
    per_pod = int(group["rayStartParams"]["num-cpus"]) // options.workers
    assert per_pod * group["minReplicas"] >= options.min_replicas
    assert per_pod * group["maxReplicas"] >= (options.max_replicas or 0)
    (container,) = group["template"]["spec"]["containers"]
    assert int(container["resources"]["limits"]["cpu"]) > per_pod * options.workers


def test_ray_versions_agree() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert f"ray[serve]>={CLUSTER['rayVersion'].rpartition('.')[0]}" in project
