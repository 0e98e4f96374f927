"""Number of workers from the affinity and the CPU quota, with injected files of the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_server.settings import EdgeSettings
from shared.cpus import usable_cores

V2 = "0::/system.slice/dimee.service\n"
V1 = "12:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n0::/docker/ab\n"
OWN_2 = "sys/fs/cgroup/system.slice/dimee.service/cpu.max"
OWN_1 = "sys/fs/cgroup/cpu,cpuacct/docker/ab"


def host(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, content in {"proc/self/cgroup": groups, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("cores", "groups", "files", "expected"),
    [
        (64, V2, {OWN_2: "200000 100000\n"}, 2),
        (2, V2, {OWN_2: "50000 100000\n"}, 1),
        (2, V2, {OWN_2: "1000 100000\n"}, 1),
        (8, V2, {OWN_2: "250000 100000\n"}, 2),
        (8, V2, {OWN_2: "max 100000\n"}, 8),
        (2, V2, {OWN_2: "800000 100000\n"}, 2),
        (8, V2, {OWN_2: "max 100000\n", "sys/fs/cgroup/system.slice/cpu.max": "30 10"}, 3),
        (8, "0::/\n", {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (8, "0::/../gone\n", {"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        (8, V1, {f"{OWN_1}/cpu.cfs_quota_us": "200000", f"{OWN_1}/cpu.cfs_period_us": "100000"}, 2),
        (8, V1, {f"{OWN_1}/cpu.cfs_quota_us": "-1", f"{OWN_1}/cpu.cfs_period_us": "100000"}, 8),
        (
            8,
            V1,
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000",
            },
            3,
        ),
        (8, V2, {OWN_2: "malformed\n"}, 8),
        (8, V2, {OWN_2: "0 0\n"}, 8),
        (8, "", {}, 8),
        (8, "garbage\n:::\n", {}, 8),
    ],
)
def test_quota_limits_the_number_of_cores(
    tmp_path: Path, cores: int, groups: str, files: dict[str, str], expected: int
) -> None:
    assert usable_cores(host(tmp_path, groups, files), cores) == expected


def test_affinity_is_the_limit_without_control_groups(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_workers_are_the_usable_cores_unless_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.settings.usable_cores", lambda: 3)
    assert EdgeSettings().workers == 3
    monkeypatch.setenv("DIMEE_WORKERS", "7")
    assert EdgeSettings().workers == 7
