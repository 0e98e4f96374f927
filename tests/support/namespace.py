"""Programs in a network and process namespace of their own, which end with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

_UNSHARE = ["unshare", "-rnp", "--fork", "--kill-child", "--mount-proc"]
_WITH_LOOPBACK = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def _can_unshare() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run([*_UNSHARE, *_WITH_LOOPBACK, "true"], capture_output=True).returncode == 0


def skip_without_ray() -> None:
    """Skip the test if ray is not installed, or cannot be kept apart from the machine's network."""
    if find_spec("ray") is None:
        pytest.skip("the extra ray is not installed: pip install -e '.[ray]'")
    if not _can_unshare():
        pytest.skip("no network namespace (unshare -rn, ip): Ray's nodes would use the network")


def run_in_namespace(
    arguments: list[str], folder: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` where only loopback exists; all of its processes end with it.

    ``folder`` is its home, in which Ray would look for a token.
    """
    return subprocess.run(
        [*_UNSHARE, *_WITH_LOOPBACK, sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "HOME": str(folder)},
        timeout=timeout_s,
    )
