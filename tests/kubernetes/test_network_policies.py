"""Which pods may connect to which, by the NetworkPolicies alone."""

from __future__ import annotations

from typing import Any

from tests.support.kubernetes import Manifest, named, needs_kubectl, workloads

pytestmark = needs_kubectl
PORTS = {"mobile": 8701, "edge": 8702, "cloud": 8703, "ledger": 8700, "postgres": 5432}
ALLOWED = {
    ("mobile", "edge"),
    ("mobile", "cloud"),
    ("mobile", "ledger"),
    ("edge", "ledger"),
    ("cloud", "ledger"),
    ("ledger", "postgres"),
}
SELF = "kubernetes.io/metadata.name"


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a label selector matches (of its operators, ``In``)."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def peer_matches(peer: dict[str, Any], labels: dict[str, str], namespace: str) -> bool:
    if "ipBlock" in peer:
        return False  # no pod's address
    space = peer.get("namespaceSelector")
    in_space = namespace == "dimee" if space is None else selects(space, {SELF: namespace})
    return in_space and selects(peer.get("podSelector", {}), labels)


def allows(
    rules: list[dict[str, Any]],
    side: str,
    labels: dict[str, str],
    namespace: str,
    port: int,
    protocol: str = "TCP",
) -> bool:
    """Return whether one rule allows a connection with this peer (``side`` is from or to)."""
    for rule in rules:
        peers, ports = rule.get(side), rule.get("ports")
        if peers is not None and not any(peer_matches(p, labels, namespace) for p in peers):
            continue
        if ports is None or any(p["port"] == port and p["protocol"] == protocol for p in ports):
            return True
    return False


class Network:
    """The connections that the policies of the namespace allow."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self._policies = [one["spec"] for one in named(manifests, "NetworkPolicy").values()]
        self.labels = {
            name: workload["spec"]["template"]["metadata"]["labels"]
            for name, workload in workloads(manifests).items()
        }

    def _rules(self, name: str, kind: str) -> list[dict[str, Any]]:
        applying = [
            policy
            for policy in self._policies
            if selects(policy["podSelector"], self.labels[name]) and kind in policy["policyTypes"]
        ]
        assert applying, f"no policy restricts the {kind} of {name}"
        return [rule for policy in applying for rule in policy.get(kind.lower(), ())]

    def sends(
        self, name: str, labels: dict[str, str], namespace: str, port: int, protocol: str = "TCP"
    ) -> bool:
        """Return whether a pod may open this connection."""
        return allows(self._rules(name, "Egress"), "to", labels, namespace, port, protocol)

    def receives(self, name: str, labels: dict[str, str], namespace: str, port: int) -> bool:
        """Return whether a pod may be reached by this connection."""
        return allows(self._rules(name, "Ingress"), "from", labels, namespace, port)

    def connects(self, source: str, target: str) -> bool:
        """Return whether both ends allow the connection."""
        port = PORTS[target]
        return self.sends(source, self.labels[target], "dimee", port) and self.receives(
            target, self.labels[source], "dimee", port
        )


def test_only_these_pods_connect(manifests: list[Manifest]) -> None:
    network = Network(manifests)
    assert network.labels.keys() == PORTS.keys()
    pairs = {(a, b) for a in PORTS for b in PORTS if a != b and network.connects(a, b)}
    assert pairs == ALLOWED


def test_a_pod_reaches_only_the_port_of_a_service(manifests: list[Manifest]) -> None:
    network = Network(manifests)
    for source, target in ALLOWED:
        assert not network.sends(source, network.labels[target], "dimee", 22)
        assert not network.receives(target, network.labels[source], "dimee", 22)


def test_other_namespaces_reach_the_gateway_and_prometheus_the_metrics(
    manifests: list[Manifest],
) -> None:
    network, other = Network(manifests), {"app": "other"}
    reached = {
        (name, namespace)
        for name, port in PORTS.items()
        for namespace in ("default", "monitoring")
        if network.receives(name, other, namespace, port)
    }
    assert reached == {("mobile", "default")} | {
        (name, "monitoring") for name in ("mobile", "edge", "cloud", "ledger")
    }


def test_every_pod_resolves_names_and_reaches_nothing_else_outside(
    manifests: list[Manifest],
) -> None:
    network = Network(manifests)
    for name in PORTS:
        for protocol in ("UDP", "TCP"):
            assert network.sends(name, {"k8s-app": "kube-dns"}, "kube-system", 53, protocol)
        assert not network.sends(name, {"k8s-app": "kube-dns"}, "kube-system", 443)
        assert not network.sends(name, {"app": "other"}, "default", 443)
        assert not network.sends(name, {"app": "other"}, "default", 53, "UDP")
