"""Fault injection: kill and pause processes of a testbed, and change its links."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
import psutil

from shared.errors import DimeeError
from testbed.chaos.leftovers import Footprint
from testbed.load.target import LoadTarget, start_testbed
from testbed.processes.temporary import temporary_folder

ROLES = ("ledger", "mobile", "edge", "cloud")
LAYER_PROCESSES = ("edge-layers", "cloud-layers")
"""Worker processes that run a tier's layers; the tier restarts them."""
HOPS = ("mobile-edge", "mobile-cloud", "mobile-ledger", "edge-ledger", "cloud-ledger")
HEALTHY_LINK = "lan"
RECOVERY_S = 60.0
_SIGNALS = {
    "kill": signal.SIGKILL,
    "terminate": signal.SIGTERM,
    "pause": signal.SIGSTOP,
    "continue": signal.SIGCONT,
}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
"""Signals of which the seed draws the one that stops the testbed."""


@dataclass(frozen=True)
class FaultInjector:
    """Injects faults into a testbed; the testbed restarts processes that were killed."""

    target: LoadTarget
    paused: dict[str, list[psutil.Process]] = field(default_factory=dict)
    """Paused layer processes by name; once their tier has died, they are no longer its children."""
    left_behind: list[str] = field(default_factory=list)
    """After the end: a sentence for each process, port and file that the testbed left behind."""
    footprint: Footprint | None = None

    def pid(self, role: str) -> int:
        """Return the process id of a role now; a restarted process has a new one."""
        return int(self.target.role(role)["pid"])

    def url(self, role: str) -> str:
        """Return the address of a role itself, not that of a link in front of it."""
        return str(self.target.role(role)["url"])

    def inject(self, kind: str, name: str, spec: str | None = None) -> None:
        """Inject a fault.

        ``kill``, ``terminate``, ``pause`` or ``continue`` a role or one of `LAYER_PROCESSES`, or
        change the ``link`` of a hop to ``spec``; without a spec the link is restored.
        """
        if kind == "link":
            self.target.set_link(name, spec)
            return
        # A process that has just ended needs no signal: it will be restarted.
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if name in LAYER_PROCESSES:
                for process in self._layer_processes(kind, name):
                    process.send_signal(_SIGNALS[kind])
            else:
                os.kill(self.pid(name), _SIGNALS[kind])

    def _layer_processes(self, kind: str, name: str) -> list[psutil.Process]:
        if kind == "continue":
            return [process for process in self.paused.pop(name, []) if process.is_running()]
        processes = psutil.Process(self.pid(name.removesuffix("-layers"))).children()[:1]
        if kind == "pause":
            self.paused.setdefault(name, []).extend(processes)
        return processes

    def heal(self) -> None:
        """Restore every link, continue every process, and wait until all are ready."""
        for hop in self.target.links:
            self.target.set_link(hop, None)
        self.continue_all()
        for role in ROLES:
            self.wait_ready(role)

    def continue_all(self) -> None:
        """Continue every paused process."""
        for name in (*ROLES, *LAYER_PROCESSES):
            self.inject("continue", name)

    def wait_ready(self, role: str) -> None:
        """Wait until a role is ready again; raises `DimeeError` after `RECOVERY_S`."""
        until = time.monotonic() + RECOVERY_S
        with httpx.Client(trust_env=False, timeout=2.0) as http:
            while not _is_ready(http, self.url(role)):
                if time.monotonic() > until:
                    raise DimeeError(f"the {role} was not ready {RECOVERY_S:.0f} s after its fault")
                time.sleep(0.1)


def resident_mb(process: psutil.Process) -> float:
    """Return the resident memory of a process and its children in MB."""
    total = 0
    for part in (process, *process.children()):
        with suppress(psutil.NoSuchProcess):  # a worker that ended in the meantime
            total += part.memory_info().rss
    return total / 1e6


def _is_ready(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@contextmanager
def start_fault_injector(
    seed: int, restart_after_s: float, hops: Sequence[str] = HOPS
) -> Iterator[FaultInjector]:
    """Start a testbed on free ports; a killed process is restarted after ``restart_after_s``.

    After the end, `FaultInjector.left_behind` says what the testbed left behind.
    """
    links = dict.fromkeys(hops, HEALTHY_LINK)
    stop_with = random.Random(seed).choice(STOP_SIGNALS)
    with temporary_folder("chaos") as folder:
        scratch = folder / "tmp"
        scratch.mkdir()
        with start_testbed(
            links,
            seed,
            restart_after_s,
            ("--allow-unverified",),
            {"TMPDIR": str(scratch)},
            stop_with,
        ) as target:
            assert target.folder is not None
            footprint = Footprint.of(target.folder, scratch)
            injector = FaultInjector(target, footprint=footprint)
            try:
                yield injector
            finally:
                injector.continue_all()  # a paused process would not react to the signal to stop
                stopped_at = time.time()
        found = footprint.left_behind(stopped_at)
        injector.left_behind.extend(f"after {stop_with.name}: {problem}" for problem in found)
