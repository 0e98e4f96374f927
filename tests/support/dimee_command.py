"""Run the real ``dimee`` command: to its end, or ``dimee up`` in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from testbed.up import PORTS
from tests.support.paths import REPOSITORY, free_ports

COMMAND = str(Path(sys.executable).parent / "dimee")


def _environment() -> dict[str, str]:
    """Return the environment of a command: this checkout, one thread for torch, no hub."""
    own = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return os.environ | own


def dimee(
    *arguments: str | Path, folder: Path, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run ``dimee`` with ``arguments`` in ``folder`` and check its exit status."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


@contextmanager
def dimee_up(*arguments: str | Path, folder: Path) -> Iterator[tuple[httpx.Client, str]]:
    """Run ``dimee up`` on free ports in ``folder``; stop it with Ctrl-C at the end.

    Yields an HTTP client of the mobile, and what the command printed until it was ready.
    """
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    options = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    process = subprocess.Popen(
        [COMMAND, "up", *options, "--state-dir", "state", *map(str, arguments)],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        printed = ""
        for line in process.stdout:
            printed += line
            if "Ctrl-C stops them all" in line:
                break
        else:
            raise AssertionError(f"dimee up ended: {printed}")
        url = f"http://127.0.0.1:{ports['mobile']}"
        with httpx.Client(base_url=url, trust_env=False, timeout=60.0) as http:
            yield http, printed
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
