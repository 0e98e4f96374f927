"""One server under measurement: started, awaited, its CPU time and memory read, ended."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from shared.errors import DimeeError
from testbed.bench.peers import Peer, Variant, environment, interpreter

START_S = 120.0
SAMPLE_S = 0.5


@dataclass
class Usage:
    """CPU seconds of a server's processes during a measurement, and their peak memory in MB.

    Memory is the proportional set size: what processes share is counted once.
    """

    cpu_s: float = 0.0
    peak_mb: float = 0.0


class Served:
    """A server that answers; ``port`` is where."""

    def __init__(self, peer: Peer, process: psutil.Popen, port: int) -> None:
        self.peer, self.port = peer, port
        self._process = process

    @contextmanager
    def watched(self) -> Iterator[Usage]:
        """Measure what is used meanwhile."""
        usage, before, over = Usage(), self._cpu_s(), threading.Event()

        def sample() -> None:
            while True:
                usage.peak_mb = max(usage.peak_mb, self._memory_mb())
                if over.wait(SAMPLE_S):
                    return

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            yield usage
        finally:
            usage.cpu_s = self._cpu_s() - before
            over.set()
            sampler.join()

    def _tree(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self._process, *self._process.children(recursive=True)]
        return []

    def _cpu_s(self) -> float:
        total = 0.0
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def _memory_mb(self) -> float:
        total = 0
        for process in self._tree():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total / 1e6

    def end(self) -> None:
        """End the server and every process that it started."""
        tree = self._tree()
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(tree, timeout=10)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=10)


@contextmanager
def serve(peer: Peer, variant: Variant, venvs: Path, model: Path, port: int) -> Iterator[Served]:
    """Start a peer and wait until it answers a text; raises `DimeeError` with its last words."""
    with tempfile.TemporaryDirectory(prefix="dimee-bench-") as name:
        folder = Path(name)
        log = folder / "log"
        with log.open("wb") as out:
            process = psutil.Popen(
                peer.command(interpreter(peer, venvs), port, variant, model),
                env=environment(peer, variant, model, port, folder),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        served = Served(peer, process, port)
        try:
            _wait(served, process, log)
            yield served
        finally:
            served.end()


def _wait(served: Served, process: psutil.Popen, log: Path) -> None:
    peer, until = served.peer, time.monotonic() + START_S
    url = f"http://127.0.0.1:{served.port}{peer.path}"
    with httpx.Client(trust_env=False, timeout=30.0) as http:
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            with suppress(httpx.TransportError):
                if http.post(url, json=peer.body("ready")).status_code == httpx.codes.OK:
                    return
            time.sleep(0.1)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise DimeeError(f"{peer.name} did not start: {lines[-1] if lines else 'it said nothing'}")
