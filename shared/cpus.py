"""Number of cores that this process may use: affinity and the quota of its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

CGROUPS = Path("sys/fs/cgroup")


def usable_cores(root: Path = Path("/"), cores: int | None = None) -> int:
    """Return how many cores this process can keep busy, at least 1.

    That is the number of cores that it may run on (``cores``; unset: its affinity), or the whole
    cores of the smallest CPU quota of its control groups (cgroup version 1 or 2), such as
    ``docker run --cpus 2`` sets. ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    if cores is None:
        cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of this process's control groups and of those above them."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        groups = []
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts, read = (CGROUPS, CGROUPS / "unified"), _quota_2
        elif "cpu" in controllers.split(","):
            mounts, read = (CGROUPS / controllers, CGROUPS / "cpu"), _quota_1
        else:
            continue
        # in a container, the path may be the host's, of which only the mount's root is visible
        below = PurePosixPath(path.lstrip("/"))
        for mount in mounts:
            for folder in {root / mount, *(root / mount / up for up in (below, *below.parents))}:
                with suppress(OSError, ValueError):
                    quota = read(folder)
                    if quota is not None:
                        yield quota


def _quota_2(folder: Path) -> float | None:
    quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    return None if quota == "max" else _share(int(quota), int(period))


def _quota_1(folder: Path) -> float | None:
    quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
    period = int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
    return _share(quota, period)


def _share(quota: int, period: int) -> float | None:
    """Return ``quota`` in cores; None if it is no limit (-1) or makes no sense."""
    return quota / period if quota > 0 and period > 0 else None
