"""A testbed (``dimee up``) to break: its processes by their ids, its links by their relays."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
import psutil

from shared.errors import DimeeError
from testbed.load.target import Bed, own_bed

ROLES = ("ledger", "mobile", "edge", "cloud")
LAYERS = ("edge-layers", "cloud-layers")
"""The processes in which a tier's layers run; they come back by themselves, too."""
HOPS = ("mobile-edge", "mobile-cloud", "mobile-ledger", "edge-ledger", "cloud-ledger")
PLAIN = "lan"
"""The link of every hop where nothing is wrong."""
HEAL_S = 60.0


@dataclass(frozen=True)
class Victim:
    """The testbed, and what can be done to it. What is killed comes back by itself."""

    bed: Bed
    paused: dict[str, list[psutil.Process]] = field(default_factory=dict)
    """By name; a process of layers is nobody's child any more if its tier dies meanwhile."""

    def pid(self, role: str) -> int:
        """The process of a role now; one that came back has another."""
        assert self.bed.folder is not None
        facts = json.loads((self.bed.folder / "testbed.json").read_text(encoding="utf-8"))
        return int(facts["roles"][role]["pid"])

    def do(self, what: str, name: str, words: str | None = None) -> None:
        """``kill``, ``pause`` or ``go-on`` a role or one of its `LAYERS`; make a ``link`` something
        else."""
        if what == "link":
            self.bed.set_link(name, words)
            return
        number = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "go-on": signal.SIGCONT}[what]
        # it may be dead already, and will come back
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if name in LAYERS:
                for one in self._layers(what, name):
                    one.send_signal(number)
            else:
                os.kill(self.pid(name), number)

    def _layers(self, what: str, name: str) -> list[psutil.Process]:
        if what == "go-on":
            return [one for one in self.paused.pop(name, []) if one.is_running()]
        found = psutil.Process(self.pid(name.removesuffix("-layers"))).children()[:1]
        if what == "pause":
            self.paused.setdefault(name, []).extend(found)
        return found

    def heal(self) -> None:
        """Make every link plain and every process go on; return when all are ready."""
        for hop in self.bed.links:
            self.bed.set_link(hop, None)
        for role in (*ROLES, *LAYERS):
            self.do("go-on", role)
        for role in ROLES:
            self.wait_ready(role)

    def wait_ready(self, role: str) -> None:
        """Return when a role answers again; raises `DimeeError`."""
        until = time.monotonic() + HEAL_S
        with httpx.Client(trust_env=False, timeout=2.0) as http:
            while not _ready(http, self.url(role)):
                if time.monotonic() > until:
                    raise DimeeError(f"the {role} was not ready {HEAL_S:.0f} s after its fault")
                time.sleep(0.1)

    def url(self, role: str) -> str:
        """Where a role listens, past every link."""
        assert self.bed.folder is not None
        facts = json.loads((self.bed.folder / "testbed.json").read_text(encoding="utf-8"))
        return str(facts["roles"][role]["url"])


def resident_mb(process: psutil.Process) -> float:
    """The resident memory of a role, its layers' processes included."""
    total = 0
    for one in (process, *process.children()):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile, and another comes
            total += one.memory_info().rss
    return total / 1e6


def _ready(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@contextmanager
def victim(
    seed: int, restart_after_s: float, hops: Sequence[str] = HOPS, extra: tuple[str, ...] = ()
) -> Iterator[Victim]:
    """A testbed on free ports; a killed process is restarted after ``restart_after_s``."""
    links = dict.fromkeys(hops, PLAIN)
    with own_bed(links, seed, restart_after_s, ("--allow-unverified", *extra)) as bed:
        made = Victim(bed)
        try:
            yield made
        finally:  # a paused process would not hear that it should end
            for role in (*ROLES, *LAYERS):
                made.do("go-on", role)
