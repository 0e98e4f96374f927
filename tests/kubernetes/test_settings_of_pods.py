"""The manifests fit the program: images, users, ports, settings, probes, times, CPU limits."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from cloud_server.settings import CloudSettings
from edge_server.settings import EdgeSettings
from mobile_client.dispatch.replica_set import RESOLVE_INTERVAL_S
from mobile_client.settings import MobileSettings
from shared.connections import CLOSE_S, GRACEFUL_STOP_S
from shared.cpus import usable_cores
from shared.ledger.server.settings import LedgerSettings
from shared.serving.sessions import SESSION_S
from shared.serving.tokens import read_tokens
from shared.settings import ServiceSettings, TierSettings, read_settings
from shared.variable_names import unknown_variables
from tests.support.kubernetes import (
    SERVICES,
    TIERS,
    Manifest,
    container,
    environment,
    named,
    needs_kubectl,
    volume_files,
    workloads,
)
from tests.support.paths import REPOSITORY

pytestmark = needs_kubectl

SETTINGS: dict[str, type[ServiceSettings]] = {
    "mobile": MobileSettings,
    "edge": EdgeSettings,
    "cloud": CloudSettings,
    "ledger": LedgerSettings,
}
DNS_CACHE_S = 30.0
"""Time for which CoreDNS keeps an answer in kubeadm's configuration (``ttl 30``, ``cache 30``)."""
UNITS = {"m": 1e-3, "": 1.0, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
DOCKERFILE = (REPOSITORY / "deploy" / "Dockerfile").read_text(encoding="utf-8")


def quantity(text: str) -> float:
    """Return a Kubernetes quantity as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def stage(target: str) -> str:
    """Return the last stage of the Dockerfile with this name."""
    return re.split(r"^FROM ", DOCKERFILE.partition(f" AS {target}\n")[2], flags=re.M)[0]


def pod(workload: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("name", SERVICES)
def test_image_and_port_are_the_dockerfiles(manifests: list[Manifest], name: str) -> None:
    one = container(workloads(manifests)[name])
    assert re.fullmatch(rf"dimee-{name}:\w+", one["image"])
    port = re.search(r"^EXPOSE (\d+)$", stage(name), flags=re.M)
    assert port is not None
    assert [entry["containerPort"] for entry in one["ports"]] == [int(port[1])]
    variables = environment(manifests, workloads(manifests)[name], f"{name}-0")
    assert variables["DIMEE_PORT"] == port[1]
    # the kubelet and other pods reach it
    assert variables["DIMEE_HOST"] == "0.0.0.0"
    for service in named(manifests, "Service").values():
        if service["spec"]["selector"]["app.kubernetes.io/component"] == name:
            assert [entry["port"] for entry in service["spec"]["ports"]] == [int(port[1])]


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_a_setting_of_the_service(
    manifests: list[Manifest], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment(manifests, workloads(manifests)[name], f"{name}-0")
    assert unknown_variables(variables) == {}
    fields = {f"DIMEE_{field.upper()}" for field in SETTINGS[name].model_fields}
    assert variables.keys() <= fields
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    settings = read_settings(SETTINGS[name])
    if isinstance(settings, TierSettings):
        assert settings.replica == f"{name}-0"
    assert settings.tokens is not None
    assert settings.tls_cert is not None


def test_addresses_are_services_with_that_port_and_certificate(manifests: list[Manifest]) -> None:
    services = named(manifests, "Service")
    checked = 0
    for name in TIERS:
        variables = environment(manifests, workloads(manifests)[name], f"{name}-0")
        for variable, value in variables.items():
            for host, port in re.findall(r"https?://([\w.-]+):(\d+)", value):
                assert value.startswith("https://"), variable
                assert [one["port"] for one in services[host]["spec"]["ports"]] == [int(port)]
                target = services[host]["spec"]["selector"]["app.kubernetes.io/component"]
                files = volume_files(manifests, workloads(manifests)[target])
                certificate = x509.load_pem_x509_certificate(files["/secrets/tls"]["tls.crt"])
                names = certificate.extensions.get_extension_for_class(
                    x509.SubjectAlternativeName
                ).value.get_values_for_type(x509.DNSName)
                assert {host, f"{host}.dimee", f"{host}.dimee.svc"} <= set(names)
                checked += 1
    assert checked == 5  # three ledgers, the mobile's edge and cloud


def test_a_session_of_the_page_stays_at_the_replica_that_knows_it(
    manifests: list[Manifest],
) -> None:
    page = named(manifests, "Service")["mobile-page"]["spec"]
    assert page["selector"] == named(manifests, "Service")["mobile"]["spec"]["selector"]
    assert page["sessionAffinity"] == "ClientIP"
    assert page["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] >= SESSION_S
    files = volume_files(manifests, workloads(manifests)["mobile"])
    certificate = x509.load_pem_x509_certificate(files["/secrets/tls"]["tls.crt"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert "mobile-page" in names.value.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize("name", SERVICES)
def test_files_of_the_settings_are_mounted_and_valid(
    manifests: list[Manifest], name: str, tmp_path: Path
) -> None:
    workload = workloads(manifests)[name]
    mounted = volume_files(manifests, workload)
    for variable, value in environment(manifests, workload, f"{name}-0").items():
        if not value.startswith("/secrets/"):
            continue
        folder, _, file = value.rpartition("/")
        assert file in mounted[folder], variable
        (tmp_path / file).write_bytes(mounted[folder][file])
    names = {token.name: set(token.scopes) for token in read_tokens(tmp_path / "tokens.jsonl")}
    assert names["mobile"] == {"infer", "ledger:write"}
    assert names["edge"] == names["cloud"] == {"ledger:write"}
    assert names["prometheus"] == {"metrics"}
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    if name in TIERS:
        ssl.create_default_context(cafile=tmp_path / "ca.crt")
        assert (tmp_path / "token").read_text().startswith("dimee_")


@pytest.mark.parametrize("name", SERVICES)
def test_probes_ask_what_the_service_answers_without_a_token(
    manifests: list[Manifest], name: str
) -> None:
    one = container(workloads(manifests)[name])
    asked = {kind: one[kind]["httpGet"] for kind in one if kind.endswith("Probe")}
    assert {kind: get["path"] for kind, get in asked.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {(get["port"], get["scheme"]) for get in asked.values()} == {("https", "HTTPS")}
    # a service may take a minute to load its layers
    startup, liveness = one["startupProbe"], one["livenessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120
    # a busy pod is not replaced before a minute without any answer
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60


@pytest.mark.parametrize("name", SERVICES)
def test_graceful_stop_is_long_enough_for_the_services_own_limits(
    manifests: list[Manifest], name: str
) -> None:
    workload = workloads(manifests)[name]
    command = container(workload)["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "sleep"
    until_sigterm_s = float(command[1])
    needed_s = until_sigterm_s + GRACEFUL_STOP_S + CLOSE_S
    assert pod(workload)["terminationGracePeriodSeconds"] >= needed_s
    if named(manifests, "Service")[name]["spec"].get("clusterIP") == "None":
        # callers find the pod by its address: a connection to that of a pod that is gone hangs
        assert until_sigterm_s >= DNS_CACHE_S + RESOLVE_INTERVAL_S


def test_workers_follow_the_cpu_limit_and_not_the_cores_of_the_node(
    all_manifests: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    found = {}
    for overlay, manifests in all_manifests.items():
        limit = quantity(container(workloads(manifests)["edge"])["resources"]["limits"]["cpu"])
        root = tmp_path / overlay
        for name, content in (
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", f"{round(limit * 100_000)} 100000\n"),
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        found[overlay] = usable_cores(root, cores=64)
    assert found == {"base": 2, "overlays/local": 1, "overlays/edge-cloud": 2}


def test_pods_have_no_rights(manifests: list[Manifest]) -> None:
    """The Pod Security Standard ``restricted``, and a file system that is read-only."""
    user = re.search(r"^USER (\d+):(\d+)$", stage("runtime"), flags=re.M)
    assert user is not None
    for name, workload in workloads(manifests).items():
        spec, one = pod(workload), container(workload)
        security = spec["securityContext"]
        if name in SERVICES:
            assert (security["runAsUser"], security["runAsGroup"]) == tuple(map(int, user.groups()))
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["fsGroup"] == security["runAsGroup"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert spec["automountServiceAccountToken"] is False
        # a Service named dimee-… would otherwise set variables that begin with DIMEE_
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        assert all("hostPath" not in volume for volume in spec["volumes"])
        limits, requests = one["resources"]["limits"], one["resources"]["requests"]
        for resource in ("cpu", "memory"):
            assert 0 < quantity(requests[resource]) <= quantity(limits[resource])
        assert {"/tmp"} <= {mount["mountPath"] for mount in one["volumeMounts"]}
    (namespace,) = named(manifests, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_tier_keeps_its_outbox_under_a_stable_name(manifests: list[Manifest]) -> None:
    """The successor of a pod has its name, and gets its volume; nothing deletes a volume."""
    stateful = named(manifests, "StatefulSet")
    services = named(manifests, "Service")
    for name in TIERS:
        spec = stateful[name]["spec"]
        assert services[spec["serviceName"]]["spec"]["clusterIP"] == "None"
        assert spec["persistentVolumeClaimRetentionPolicy"] == {
            "whenDeleted": "Retain",
            "whenScaled": "Retain",
        }
        # the autoscaler's number of replicas stays at the next kubectl apply
        assert "replicas" not in spec
        (claim,) = spec["volumeClaimTemplates"]
        assert claim["metadata"]["name"] == "state"
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
        mounts = {m["name"]: m["mountPath"] for m in container(stateful[name])["volumeMounts"]}
        variables = environment(manifests, stateful[name], f"{name}-0")
        assert variables["DIMEE_STATE_DIR"].startswith(mounts["state"] + "/")
        # the outbox's own limit comes before the volume's
        default = SETTINGS[name].model_fields["outbox_max_mb"].default
        limit_mb = float(variables.get("DIMEE_OUTBOX_MAX_MB", default))
        room = quantity(claim["spec"]["resources"]["requests"]["storage"])
        assert room >= 1.5 * limit_mb * 1e6


def test_database_url_names_the_database_of_the_manifests(manifests: list[Manifest]) -> None:
    ledger = environment(manifests, workloads(manifests)["ledger"], "ledger-0")
    postgres = workloads(manifests)["postgres"]
    variables = environment(manifests, postgres, "postgres-0")
    password = volume_files(manifests, postgres)["/secrets/database"]["password"].decode()
    assert variables["POSTGRES_PASSWORD_FILE"] == "/secrets/database/password"
    assert re.fullmatch("[0-9a-f]{48}", password)
    user, database = variables["POSTGRES_USER"], variables["POSTGRES_DB"]
    assert ledger["DIMEE_DATABASE_URL"] == (
        f"postgresql+psycopg://{user}:{password}@postgres:5432/{database}"
    )


def test_every_workload_has_a_disruption_budget_that_allows_a_drain(
    manifests: list[Manifest],
) -> None:
    budgets = named(manifests, "PodDisruptionBudget")
    assert budgets.keys() == workloads(manifests).keys()
    for name, workload in workloads(manifests).items():
        assert budgets[name]["spec"]["selector"] == workload["spec"]["selector"]
        assert budgets[name]["spec"]["maxUnavailable"] == 1


def test_edge_nodes_run_mobile_and_edge_only(all_manifests: dict[str, list[Manifest]]) -> None:
    found = workloads(all_manifests["overlays/edge-cloud"])
    label = "node-role.kubernetes.io/edge"
    for name, workload in found.items():
        spec = pod(workload)
        if name not in ("mobile", "edge"):
            required = spec["affinity"]["nodeAffinity"][
                "requiredDuringSchedulingIgnoredDuringExecution"
            ]
            assert required["nodeSelectorTerms"] == [
                {"matchExpressions": [{"key": label, "operator": "DoesNotExist"}]}
            ]
            continue
        assert spec["nodeSelector"] == {label: ""}
        # the pods of a node that Kubernetes cannot reach stay: no toleration has a time
        taints = {entry["key"]: entry for entry in spec["tolerations"]}
        assert taints.keys() == {
            label,
            "node.kubernetes.io/unreachable",
            "node.kubernetes.io/not-ready",
        }
        assert all("tolerationSeconds" not in entry for entry in taints.values())
        (claim,) = workload["spec"]["volumeClaimTemplates"]
        classes = named(all_manifests["overlays/edge-cloud"], "StorageClass")
        storage = classes[claim["spec"]["storageClassName"]]
        assert storage["provisioner"] == "kubernetes.io/no-provisioner"
        assert storage["reclaimPolicy"] == "Retain"


def test_edge_cloud_uses_no_headless_service(all_manifests: dict[str, list[Manifest]]) -> None:
    """EdgeMesh connects to Services with an address of their own only."""
    manifests = all_manifests["overlays/edge-cloud"]
    services = named(manifests, "Service")
    variables = environment(manifests, workloads(manifests)["mobile"], "mobile-0")
    hosts = [
        re.findall(r"//([\w.-]+):", variables[name])
        for name in ("DIMEE_EDGE_URL", "DIMEE_CLOUD_URL", "DIMEE_LEDGER_URL")
    ]
    assert hosts == [["edge-balanced"], ["cloud-balanced"], ["ledger"]]
    assert all("clusterIP" not in services[host]["spec"] for (host,) in hosts)
