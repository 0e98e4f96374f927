"""Options, slots and autoscaling of a tier on Ray Serve; none of these tests needs ray."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner
from pydantic import ValidationError

from cloud_server.settings import CloudSettings
from shared.errors import DimeeError, InvalidInput, MissingExtra
from shared.ray_serve.autoscaling import BUSY_SHARE, QUEUE_WAIT_MS, BusyShare, QueueWaitPolicy
from shared.ray_serve.cli import delete_application, http_options, serve_ray
from shared.ray_serve.options import RayOptions, deployment_options, settings_of_replica
from shared.ray_serve.replica_slots import claim_slot
from tests.support.paths import REPOSITORY

CLAIM = """
import sys, time
from pathlib import Path
from shared.ray_serve.replica_slots import claim_slot
slot = claim_slot(Path(sys.argv[1]), "cloud")
print(slot.name("node"), flush=True)
sys.stdin.read()
"""


def start_replica(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a process that holds a slot; return it and the replica's name."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_successor_of_a_killed_replica_has_its_name(tmp_path: Path) -> None:
    first, first_name = start_replica(tmp_path)
    second, second_name = start_replica(tmp_path)
    assert (first_name, second_name) == ("node-0", "node-1")
    first.kill()
    first.wait()
    successor, name = start_replica(tmp_path)
    assert name == "node-0"
    for process in (second, successor):
        process.kill()
        process.wait()


def test_slots_of_tiers_are_separate_and_become_free(tmp_path: Path) -> None:
    edge, cloud = claim_slot(tmp_path, "edge"), claim_slot(tmp_path, "cloud")
    assert (edge.number, cloud.number) == (0, 0)
    assert claim_slot(tmp_path, "cloud").number == 1
    cloud.close()
    cloud.close()
    assert claim_slot(tmp_path, "cloud").number == 0


@pytest.mark.parametrize("node", ["pod-7.ray", "x" * 64])
def test_name_is_a_valid_replica(tmp_path: Path, node: str) -> None:
    name = claim_slot(tmp_path, "cloud").name(node)
    assert settings(replica=name).replica == name


def test_folder_that_cannot_hold_locks_is_named(tmp_path: Path) -> None:
    (tmp_path / "cloud").write_text("a file")
    with pytest.raises(
        DimeeError, match=r"cloud cannot hold the replicas' locks .* DIMEE_STATE_DIR"
    ):
        claim_slot(tmp_path, "cloud")


def test_ray_does_not_queue_in_front_of_the_admission() -> None:
    """With every setting, more requests may be at a replica than its admission lets wait."""
    found = deployment_options("cloud", RayOptions(workers=4))
    assert found["max_ongoing_requests"] > 2 * CloudSettings(_env_file=None).max_queue
    assert found["ray_actor_options"] == {"num_cpus": 4}
    assert found["num_replicas"] == 1
    # a request with the longest deadline is still answered, and its entry delivered, also if it
    # arrives at the end of the 30 s in which HAProxy still sends requests
    assert found["graceful_shutdown_timeout_s"] > 30 + 60 + 2


def test_a_replica_uses_the_gpus_that_it_reserves_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DIMEE_DEVICE", raising=False)
    on_cores, on_gpus = RayOptions(workers=3), RayOptions(workers=3, gpus=2)
    found = [settings_of_replica(CloudSettings, options) for options in (on_cores, on_gpus)]
    assert [(one.device, one.workers) for one in found] == [("cpu", 3), ("auto", 2)]
    assert deployment_options("cloud", on_gpus)["ray_actor_options"] == {
        "num_cpus": 3,
        "num_gpus": 2,
    }
    monkeypatch.setenv("DIMEE_DEVICE", "cuda")
    assert settings_of_replica(CloudSettings, on_cores).device == "cuda"


def test_autoscaling_is_by_the_tiers_queue() -> None:
    found = deployment_options("edge", RayOptions(min_replicas=2, max_replicas=9, target_wait_ms=7))
    assert "num_replicas" not in found
    scaling = found["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (2, 9)
    module, _, name = scaling["policy"]["policy_function"].partition(":")
    policy = getattr(sys.modules[module], name)(**scaling["policy"]["policy_kwargs"])
    assert isinstance(policy, QueueWaitPolicy)
    # Ray sends both as JSON
    assert json.loads(json.dumps(scaling)) == scaling


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"min_replicas": 3, "max_replicas": 2}, {"replicas": 2}, {"target_busy": 1.5}],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RayOptions.model_validate(wrong)


@dataclass
class Context:
    """The part of Ray's autoscaling context that the policy reads."""

    current_num_replicas: int
    wait_ms: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    target_num_replicas: int = -1

    @property
    def aggregated_metrics(self) -> dict[str, dict[int, float]]:
        return {
            QUEUE_WAIT_MS: dict(enumerate(self.wait_ms)),
            BUSY_SHARE: dict(enumerate(self.busy)),
        }


@pytest.mark.parametrize(
    ("context", "replicas"),
    [
        # a queue: 1.5 times the target
        (Context(4, wait_ms=[30.0] * 4, busy=[0.7] * 4), 6),
        # never more than twice as many at once
        (Context(2, wait_ms=[500.0] * 2, busy=[1.0] * 2), 4),
        # full, although the admission keeps the queue short
        (Context(3, wait_ms=[5.0] * 3, busy=[1.0] * 3), 5),
        # one loaded replica among idle ones: the mean counts
        (Context(4, wait_ms=[0.0] * 4, busy=[0.7, 0.0, 0.0, 0.0]), 1),
        (Context(4, wait_ms=[0.0] * 4, busy=[0.35] * 4), 2),
        # within the tolerance
        (Context(4, wait_ms=[21.0] * 4, busy=[0.7] * 4, target_num_replicas=4), 4),
        # idle: Ray keeps min_replicas
        (Context(2, wait_ms=[0.0] * 2, busy=[0.0] * 2), 1),
        # no metric yet
        (Context(2, target_num_replicas=3), 3),
    ],
)
def test_policy_keeps_wait_and_busy_share_at_their_targets(context: Context, replicas: int) -> None:
    assert QueueWaitPolicy(target_wait_ms=20.0, target_busy=0.7)(context) == (replicas, {})


def test_busy_share_is_of_the_time_since_the_last_call() -> None:
    share = BusyShare(workers=2, now_s=10.0)
    assert share.since_last(1_000.0, 11.0) == 0.5
    assert share.since_last(1_000.0, 12.0) == 0.0
    assert share.since_last(9_000.0, 13.0) == 1.0
    assert share.since_last(9_000.0, 13.0) == 0.0


def settings(**given: Any) -> CloudSettings:
    return CloudSettings(_env_file=None, **given)


def test_proxy_listens_where_the_settings_say() -> None:
    options = http_options(settings(host="127.0.0.1", port=1234), ha_proxy=False)
    assert (options["host"], options["port"]) == ("127.0.0.1", 1234)


def test_proxy_that_others_can_reach_needs_tokens() -> None:
    with pytest.raises(InvalidInput, match="no tokens are set"):
        http_options(settings(host="0.0.0.0"), ha_proxy=False)


def test_tls_is_given_to_the_proxy_or_refused(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    tls = {"tls_cert": cert, "tls_key": key}
    found = http_options(settings(**tls), ha_proxy=False)
    assert (found["ssl_certfile"], found["ssl_keyfile"]) == (str(cert), str(key))
    with pytest.raises(InvalidInput, match="plain HTTP only"):
        http_options(settings(**tls), ha_proxy=True)
    with pytest.raises(InvalidInput, match="does not require client certificates"):
        http_options(settings(**tls, tls_client_ca=cert), ha_proxy=False)


def test_command_without_ray_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "shared.extras.find_spec", lambda name: None if name == "ray" else find_spec(name)
    )
    result = CliRunner().invoke(serve_ray, ["--tier", "cloud"])
    assert isinstance(result.exception, MissingExtra)
    assert "pip install -e '.[service,ray]'" in result.exception.message


def test_stop_waits_longer_than_one_call_of_ray() -> None:
    """``serve.delete`` gives up after 60 s; a request may have a deadline of 60 s."""
    time_s, calls = 0.0, 0

    def delete() -> None:
        nonlocal time_s, calls
        calls += 1
        time_s += 60.0
        if time_s < needed_s:
            raise TimeoutError

    needed_s = 100.0
    delete_application(delete, now=lambda: time_s)
    assert calls == 2
    time_s, needed_s = 0.0, float("inf")
    with pytest.raises(DimeeError, match="have not stopped"):
        delete_application(delete, now=lambda: time_s)


def test_command_refuses_a_tier_that_is_no_server() -> None:
    result = CliRunner().invoke(serve_ray, ["--tier", "mobile"])
    assert result.exit_code == 2
