"""Prometheus's rules, and each panel of the Grafana dashboard on a real Prometheus.

Grafana itself cannot be installed here; what it would send to Prometheus is sent by the test.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from shared.serving.tokens import new_token
from testbed.processes.processes import Testbed
from tests.support.paths import REPOSITORY
from tests.support.prometheus_server import OBSERVABILITY, Prometheus, prometheus
from tests.support.running_testbed import sentences, start

DASHBOARD = OBSERVABILITY / "grafana" / "dashboards" / "dimee.json"
PROVISIONING = OBSERVABILITY / "grafana" / "provisioning"
POLICIES = ("cascade-routing", "mobile", "edge", "cloud")
INTERVAL = "10s"
"""Grafana's ``$__rate_interval`` is at least four scrape intervals."""

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus and promtool are missing; Debian's package prometheus has both",
)


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """Return the panels that show data."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Return each query of the dashboard by its panel and letter, as Grafana would send it."""
    return {
        f"{panel['id']} {panel['title']} {target['refId']}": target["expr"].replace(
            "$__rate_interval", INTERVAL
        )
        for panel in panels()
        for target in panel["targets"]
    }


@contextmanager
def traffic(testbed: Testbed, **headers: str) -> Iterator[None]:
    """Send requests of every policy, and some that are refused, until the end of the block."""
    stop, failures = threading.Event(), []
    url = testbed.roles["mobile"].url

    def send() -> None:
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as http:
            try:
                while not stop.is_set():
                    for policy in POLICIES:
                        body = {"texts": sentences(8), "policy": policy}
                        http.post("/v1/classify", json=body).raise_for_status()
                    assert http.post("/v1/classify", json={"texts": []}).status_code == 422
                    stop.wait(0.05)
            except Exception as error:
                failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()
    assert not failures


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=OBSERVABILITY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    rules = sorted(str(file) for file in (OBSERVABILITY / "rules").glob("*.yml"))
    assert len(rules) == 2
    assert promtool("check", "rules", *rules).count("SUCCESS") == 2


def test_rules_record_and_alert_as_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")


def test_each_alert_has_a_test_and_says_what_to_do() -> None:
    text = (OBSERVABILITY / "rules" / "alerts.yml").read_text(encoding="utf-8")
    alerts = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert len(alerts) > 10
    tested = (OBSERVABILITY / "rules_test.yml").read_text(encoding="utf-8")
    for alert in alerts:
        assert f"alertname: {alert['alert']}\n" in tested, alert["alert"]
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"].keys() == {"summary", "action"}


def test_dashboard_is_provisioned_with_its_data_source() -> None:
    source = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())
    provider = yaml.safe_load((PROVISIONING / "dashboards" / "dimee.yml").read_text())
    (prometheus_source,) = source["datasources"]
    compose = yaml.safe_load((REPOSITORY / "deploy" / "compose.observability.yml").read_text())
    mounts = [mount.split(":") for mount in compose["services"]["grafana"]["volumes"]]
    folders = {inside: outside for outside, inside, *_ in mounts}
    path = provider["providers"][0]["options"]["path"]
    assert (REPOSITORY / folders[path]).resolve() == DASHBOARD.parent
    assert (REPOSITORY / folders["/etc/grafana/provisioning"]).resolve() == PROVISIONING
    found = dashboard()
    sources = {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]}
    assert sources == {prometheus_source["uid"]}
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for other in found["panels"]:
            assert other["id"] == panel["id"] or not _overlap(place, other["gridPos"]), panel[
                "title"
            ]


def _overlap(one: dict[str, int], two: dict[str, int]) -> bool:
    return (
        one["x"] < two["x"] + two["w"]
        and two["x"] < one["x"] + one["w"]
        and one["y"] < two["y"] + two["h"]
        and two["y"] < one["y"] + one["h"]
    )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Testbed, Prometheus]]:
    """A testbed with tokens under traffic, and a Prometheus whose token has the scope metrics."""
    folder = tmp_path_factory.mktemp("watched")
    file = folder / "tokens.jsonl"
    own = new_token(file, "tier", ["infer", "ledger:write", "ledger:read"])[0]
    app = new_token(file, "app", ["classify"])[0]
    token = folder / "auth"
    token.mkdir()
    (token / "token").write_text(new_token(file, "prometheus", ["metrics"])[0] + "\n")
    with (
        start(
            folder / "state",
            DIMEE_TOKENS=str(file),
            DIMEE_TOKEN=own,
            DIMEE_AUDIT_SHARE="0.2",
            DIMEE_WORKERS="1",
        ) as testbed,
        prometheus(testbed, folder / "prometheus", token) as server,
    ):
        server.wait_for_targets()
        with traffic(testbed, authorization=f"Bearer {app}"):
            yield testbed, server


def test_every_panel_shows_data(watched: tuple[Testbed, Prometheus]) -> None:
    """Each query of each panel has a result with a number in it."""
    _, server = watched
    left = queries()
    assert len(left) > 60

    def all_answered() -> bool:
        for name in [name for name, expr in left.items() if server.values(expr)]:
            del left[name]
        return not left

    server.wait_until(all_answered, lambda: f"empty: {left}")


def test_annotations_can_be_queried(watched: tuple[Testbed, Prometheus]) -> None:
    (annotation,) = dashboard()["annotations"]["list"]
    watched[1].query(annotation["expr"])


def test_figures_of_the_dashboard_agree_with_each_other(
    watched: tuple[Testbed, Prometheus],
) -> None:
    _, server = watched
    recorded = re.findall(
        r"record: (\S+)", (OBSERVABILITY / "rules" / "recording.yml").read_text(encoding="utf-8")
    )
    assert len(recorded) > 10
    left = set(recorded)

    def all_recorded() -> bool:
        left.difference_update([name for name in left if server.values(name)])
        return not left

    server.wait_until(all_recorded, lambda: f"not recorded: {left}")
    (share,) = server.values("sum(dimee:answers:share_rate5m)")
    assert share == pytest.approx(1)
    (failed,) = server.values("dimee:requests_failed:ratio_rate5m")
    assert failed == 0
    (p50,) = server.values("dimee:request_seconds:p50_rate5m")
    (p99,) = server.values("dimee:request_seconds:p99_rate5m")
    assert 0 < p50 <= p99
    # the policy "cloud" alone costs as much as all-cloud
    (saved,) = server.values("dimee:saving:ratio_rate5m")
    assert 0 < saved < 1


def test_no_alert_fires_in_normal_operation(watched: tuple[Testbed, Prometheus]) -> None:
    firing = watched[1].query('ALERTS{alertstate="firing",severity="critical"}')
    assert not firing
    assert not watched[1].query('ALERTS{alertname=~"DimeeTierUnavailable|DimeeLedger.*"}')


def test_a_dead_service_is_seen(watched: tuple[Testbed, Prometheus]) -> None:
    """Last in this module: it kills the edge."""
    testbed, server = watched
    testbed.kill("edge")
    server.wait_until(
        lambda: bool(server.query('ALERTS{alertname="DimeeServiceDown",service="edge"}')),
        server.targets,
    )
    server.wait_until(
        lambda: server.values('dimee_circuit_breaker_state{tier="edge",state="open"}') == [1.0],
        lambda: server.query("dimee_circuit_breaker_state"),
    )
    failed_over = 'sum(dimee_attempts_total{reason="fail_over"})'
    server.wait_until(lambda: server.values(failed_over) > [0.0], lambda: failed_over)


def test_services_without_tokens_ignore_the_shipped_token(tmp_path: Path) -> None:
    with (
        start(tmp_path / "state", DIMEE_WORKERS="1") as testbed,
        prometheus(testbed, tmp_path / "prometheus") as server,
    ):
        server.wait_for_targets()
