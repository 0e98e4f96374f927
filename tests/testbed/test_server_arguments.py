"""Servers read variables; an argument is an error, since it would have no effect."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    ["cloud_server", "edge_server", "mobile_client", "shared.ledger.server", "testbed.links"],
)
def test_server_refuses_arguments(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--prot", "8702"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("dimee: --prot: a server takes no arguments")
