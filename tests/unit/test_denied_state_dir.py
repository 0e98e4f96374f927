"""A state folder that belongs to another user ends each start with one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import port_options
from tests.support.paths import BUNDLE, REPOSITORY, free_ports

AS_ANY_USER = [
    "setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"
]  # fmt: skip
"""Without these capabilities the permissions of files hold for root as well."""


@pytest.mark.skipif(
    os.getuid() == 0 and shutil.which("setpriv") is None, reason="root needs setpriv"
)
@pytest.mark.parametrize(
    ("command", "setting"),
    [
        (["shared.command", "classify", "fine", "--policy", "mobile"], "DIMEE_STATE_DIR"),
        (["mobile_client"], "DIMEE_STATE_DIR"),
        (["edge_server"], "DIMEE_STATE_DIR"),
        (["shared.ledger.server"], "DIMEE_STATE_DIR"),
        (["shared.command", "up", *port_options()], "--state-dir"),
    ],
)
def test_start_names_folder_and_setting(command: list[str], setting: str, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o000)
    settings = {
        "PYTHONPATH": str(REPOSITORY),
        "DIMEE_STATE_DIR": str(folder),
        "DIMEE_BUNDLE": str(BUNDLE),
        "DIMEE_PORT": str(free_ports(1)[0]),
    }
    done = subprocess.run(
        [*(AS_ANY_USER if os.getuid() == 0 else []), sys.executable, "-m", *command],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("dimee: ")
    assert str(folder) in line
    assert "ermission denied" in line
    assert setting in line
