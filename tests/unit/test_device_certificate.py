"""The script that makes a certificate for the gateway says why it made none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

SCRIPT = REPOSITORY / "deploy" / "device-certificate.sh"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_wrong_address_is_said(tmp_path: Path) -> None:
    command = ["/bin/sh", str(SCRIPT), str(tmp_path / "device"), "999.1.1.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no certificate was made" in done.stderr
    assert "999.1.1.1" in done.stderr


def test_missing_openssl_is_said(tmp_path: Path) -> None:
    command = ["/bin/sh", str(SCRIPT), str(tmp_path / "device"), "127.0.0.1"]
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr == "openssl is not installed; install it, then run this script again\n"
