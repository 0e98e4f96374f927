"""Random faults by seed. `make chaos` runs two hundred schedules of twenty seconds."""

from __future__ import annotations

import pytest

from testbed.chaos.fault_injector import start_fault_injector
from testbed.chaos.schedules import RESTART_AFTER_S, make_faults, run_schedule

SEEDS = (2, 7)
SECONDS = 6.0


def test_seed_gives_the_same_faults_each_time() -> None:
    for seed in range(50):
        faults = make_faults(seed, SECONDS)
        assert faults == make_faults(seed, SECONDS)
        assert 3 <= len(faults) <= 6
        assert all(fault.at_s + fault.for_s < SECONDS for fault in faults)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_invariants_hold_after_random_faults() -> None:
    with start_fault_injector(SEEDS[0], RESTART_AFTER_S) as injector:
        for seed in SEEDS:
            found = run_schedule(injector, seed, SECONDS, rate=8.0)
            assert not found["violations"], f"seed {seed}: {found['violations']}"
            assert found["by_status"].get("200", 0) > 0
    assert not injector.left_behind
