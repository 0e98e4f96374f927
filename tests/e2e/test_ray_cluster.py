"""The cloud on a Ray cluster of several nodes, one of which dies under load and one joins."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.namespace import run_in_namespace, skip_without_ray

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what `tests.support.ray_cluster` prints."""
    skip_without_ray()
    folder = tmp_path_factory.mktemp("ray")
    done = run_in_namespace(["-m", "tests.support.ray_cluster", str(folder)], folder, 540)
    assert done.returncode == 0, done.stderr[-3_000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_every_request_has_an_answer_or_a_clear_error(run: dict[str, Any]) -> None:
    assert not run["violations"]
    assert run["statuses"].get("200", 0) > 0.9 * run["requests"], run["statuses"]


def test_nothing_is_lost_and_the_ledger_is_consistent(run: dict[str, Any]) -> None:
    assert run["consistent"], run["findings"]
    assert run["requests"] == run["sent"]


def test_both_nodes_worked_and_the_successor_has_the_name(run: dict[str, Any]) -> None:
    """Each node has a disk, and the one that joins has that of the dead one."""
    replicas = {name.split()[0] for name in run["tier_entries"]}
    assert replicas == {"a-0", "b-0"}
    assert run["answered_by_the_successor"] > 0
    # entries that only the disk of the dead node had; without them `verify` finds callers alone
    assert run["left_by_the_dead"] > 0


def test_a_call_with_a_wrong_token_is_refused_by_the_tier(run: dict[str, Any]) -> None:
    assert run["without_token"] == [401, "unauthorised"]
