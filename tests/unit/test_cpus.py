"""Number of workers from the affinity and the CPU quota, with injected files of the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_server.settings import EdgeSettings
from shared.cpus import usable_cores
from tests.support.paths import REPOSITORY

V2 = "0::/system.slice/dimee.service\n"
V1 = "12:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n0::/docker/ab\n"
OWN_2 = "sys/fs/cgroup/system.slice/dimee.service/cpu.max"
OWN_1 = "sys/fs/cgroup/cpu,cpuacct/docker/ab"
POD_1 = "5:cpu,cpuacct:/kubepods/burstable/pod1/c1\n1:name=systemd:/kubepods/burstable/pod1/c1\n"
POD_2 = "0::/kubepods.slice/kubepods-pod1.slice\n"
POD_2_FOLDER = "sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice"
CONTROLLER = Path("/sys/fs/cgroup/cpu")
"""Mount of the controller ``cpu`` of control groups, version 1."""
UNIFIED = Path("/sys/fs/cgroup")
"""Mount of control groups, version 2."""


def pod_1(quota: str) -> dict[str, str]:
    folder = "sys/fs/cgroup/cpu,cpuacct"
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": "100000"}


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
        # a pod's container, half a core and two of 64: with a namespace of its own (version 2), or
        # with the host's path, of which it sees the root (version 1)
        (64, "0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (64, "0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        (64, POD_1, pod_1("50000"), 1),
        (64, POD_1, pod_1("200000"), 2),
        # a node without containers' namespaces: the pod's own group, and the one above it
        (64, POD_2, {f"{POD_2_FOLDER}/cpu.max": "200000 100000\n"}, 2),
        (64, f"{POD_2[:-1]}/app\n", {f"{POD_2_FOLDER}/cpu.max": "200000 100000\n"}, 2),
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


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A control group of this machine below the present one, removed at the end."""
    parent = CONTROLLER if (CONTROLLER / "cpu.cfs_quota_us").exists() else UNIFIED
    group = parent / f"dimee-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("control groups can be made only as root, with a writable /sys/fs/cgroup")
    yield group
    group.rmdir()


@pytest.mark.parametrize(("quota_us", "workers"), [(50_000, 1), (150_000, 1)])
def test_workers_of_a_process_in_a_real_control_group(
    control_group: Path, quota_us: int, workers: int
) -> None:
    """Nested: the process is in a group below the one that has the quota."""
    inner = control_group / "inner"
    inner.mkdir()
    try:
        limit = control_group / "cpu.cfs_quota_us"
        if limit.exists():
            limit.write_text(str(quota_us))
        elif (control_group / "cpu.max").exists():
            (control_group / "cpu.max").write_text(f"{quota_us} 100000")
        else:
            pytest.skip("the controller cpu is not enabled for new control groups")
        code = (
            f"open({str(inner / 'cgroup.procs')!r}, 'w').write('0')\n"
            "from edge_server.settings import EdgeSettings\n"
            "print(EdgeSettings().workers)"
        )
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert run.stdout.split() == [str(workers)]
    finally:
        inner.rmdir()
