"""A running server whose CPU time and memory are measured."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from shared.domain import InputText
from shared.errors import DimeeError
from testbed.bench.peers import Peer, Variant, environment, interpreter
from testbed.processes.children import watched
from testbed.processes.temporary import temporary_folder

START_S = 120.0
SAMPLE_S = 0.5


@dataclass
class Usage:
    """CPU seconds of a server's processes during a measurement, and their peak memory in MB.

    Memory is the proportional set size, which counts memory that processes share once.
    """

    cpu_s: float = 0.0
    peak_mb: float = 0.0


class MeasuredServer:
    """A server that is ready on a port of loopback."""

    def __init__(self, peer: Peer, process: psutil.Popen, port: int) -> None:
        self.peer, self.port = peer, port
        self._process = process

    @contextmanager
    def measured(self) -> Iterator[Usage]:
        """Measure the usage during the block."""
        usage, before, stopped = Usage(), self._cpu_s(), threading.Event()

        def sample() -> None:
            while True:
                usage.peak_mb = max(usage.peak_mb, self._memory_mb())
                if stopped.wait(SAMPLE_S):
                    return

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            yield usage
        finally:
            usage.cpu_s = self._cpu_s() - before
            stopped.set()
            sampler.join()

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self._process, *self._process.children(recursive=True)]
        return []

    def _cpu_s(self) -> float:
        total = 0.0
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def _memory_mb(self) -> float:
        total = 0
        for process in self._processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total / 1e6

    def stop(self) -> None:
        """Stop the server and every process that it started."""
        processes = self._processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=10)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=10)


@contextmanager
def serve(
    peer: Peer, variant: Variant, venvs: Path, model: Path, port: int, text: InputText
) -> Iterator[MeasuredServer]:
    """Start a peer and wait until it answers ``text``.

    Raises `DimeeError` with the last line of its output if it does not start.
    """
    with temporary_folder("bench") as folder, ExitStack() as stack:
        log = folder / "log"
        with log.open("wb") as out:
            process = psutil.Popen(
                peer.command(interpreter(peer, venvs), port, variant, model),
                env=environment(peer, variant, model, port, folder),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        stack.enter_context(watched(process.pid))
        server = MeasuredServer(peer, process, port)
        try:
            _wait_ready(server, process, log, text)
            yield server
        finally:
            server.stop()


def _wait_ready(server: MeasuredServer, process: psutil.Popen, log: Path, text: InputText) -> None:
    peer, until = server.peer, time.monotonic() + START_S
    url = f"http://127.0.0.1:{server.port}{peer.path}"
    with httpx.Client(trust_env=False, timeout=30.0) as http:
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            with suppress(httpx.TransportError):
                if http.post(url, json=peer.body(text)).status_code == httpx.codes.OK:
                    return
            time.sleep(0.1)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise DimeeError(f"{peer.name} did not start: {lines[-1] if lines else 'it printed nothing'}")
