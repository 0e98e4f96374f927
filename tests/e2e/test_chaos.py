"""Random faults by seed, in short: `make chaos` runs two hundred of twenty seconds."""

from __future__ import annotations

import pytest

from testbed.chaos.fault_injector import victim
from testbed.chaos.schedules import REVIVE_S, make_faults, try_schedule

SEEDS = (2, 7)
SECONDS = 6.0


def test_a_seed_gives_the_same_faults_each_time() -> None:
    for seed in range(50):
        faults = make_faults(seed, SECONDS)
        assert faults == make_faults(seed, SECONDS)
        assert 3 <= len(faults) <= 6
        assert all(fault.at_s + fault.for_s < SECONDS for fault in faults)


@pytest.mark.timeout(240)
def test_invariants_hold_after_random_faults() -> None:
    with victim(SEEDS[0], REVIVE_S) as bed:
        for seed in SEEDS:
            found = try_schedule(bed, seed, SECONDS, rate=8.0)
            assert not found["broken"], f"seed {seed}: {found['broken']}"
            assert found["by_status"].get("200", 0) > 0
