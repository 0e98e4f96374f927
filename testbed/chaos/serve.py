"""One process of the testbed by itself, on a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from shared.errors import DimeeError

START_S = 60.0


@contextmanager
def serving(module: str, settings: Mapping[str, str]) -> Iterator[int]:
    """Start ``python -m module`` and yield its port when it is ready; it ends afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="dimee-chaos-") as folder:
        log = Path(folder) / "log"
        own = {"DIMEE_PORT": str(port), "DIMEE_HOST": "127.0.0.1", "DIMEE_STATE_DIR": folder}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=os.environ | settings | own,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        try:
            _wait(process, port, log)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            url = f"http://127.0.0.1:{port}/readyz"
            if httpx.get(url, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise DimeeError(f"the process did not start: {log.read_text(errors='replace')[-300:]}")
