"""Processes, ports and files that a testbed leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from shared.testbed_file import read_testbed_file

WAIT_S = 20.0
"""Time that a process gets to notice the death of its parent, and to end."""
POLL_S = 0.1


@dataclass(frozen=True)
class Footprint:
    """A testbed's state folder, its ports, its process ``dimee up``, and its temporary folder.

    Every process of the testbed has ``TMPDIR=scratch`` in its environment, by which it is found
    even without its parent.
    """

    folder: Path
    scratch: Path
    up: int
    ports: frozenset[int]

    @classmethod
    def of(cls, folder: Path, scratch: Path) -> Footprint:
        """Return the footprint of the testbed that runs with this state folder."""
        facts = read_testbed_file(folder)
        urls = [role["url"] for role in facts["roles"].values()]
        urls += [link["control"] for link in facts["links"].values()]
        ports = {urlsplit(url).port for url in urls} | {
            link["port"] for link in facts["links"].values()
        }
        return cls(folder, scratch, facts["pid"], frozenset(port for port in ports if port))

    def orphans(self, wait_s: float = WAIT_S) -> list[str]:
        """Return a sentence for each process that the running testbed has lost.

        The layers of a killed tier are such processes until they end; they get ``wait_s``.
        """
        return _wait_for_none(
            lambda: [
                f"a process has lost its testbed: {_line(process)}"
                for process in processes_of(self.scratch)
                if process.pid != self.up and self.up not in _ancestors(process)
            ],
            wait_s,
        )

    def left_behind(self, stopped_at: float, wait_s: float = WAIT_S) -> list[str]:
        """Return a sentence for each process, port and file that is left after the stop.

        ``stopped_at`` is the time (``time.time``) at which the testbed was told to stop. A process
        that started later and got one of the freed ports is another's.
        """
        found = _wait_for_none(
            lambda: [
                f"a process is left: {_line(process)}" for process in processes_of(self.scratch)
            ],
            wait_s,
        )
        found += [
            f"port {port} is left open by: {_line(process)}"
            for port, process in _listeners()
            if port in self.ports and _started_before(process, stopped_at)
        ]
        files = [*self.scratch.rglob("*"), *([self.folder] if self.folder.exists() else [])]
        return found + [f"a file is left: {file}" for file in files]


def processes_of(scratch: Path) -> Iterator[psutil.Process]:
    """Yield the processes with ``TMPDIR=scratch``."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("TMPDIR") == str(scratch):
                yield process


def _wait_for_none(find: Callable[[], list[str]], wait_s: float) -> list[str]:
    until = time.monotonic() + wait_s
    while (found := find()) and time.monotonic() < until:
        time.sleep(POLL_S)
    return found


def _ancestors(process: psutil.Process) -> list[int]:
    try:
        return [parent.pid for parent in process.parents()]
    except psutil.Error:
        return []


def _listeners() -> Iterator[tuple[int, psutil.Process]]:
    """Yield each listening TCP port with its process, as far as this user may see them."""
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            address, pid = connection.laddr, connection.pid
            if connection.status == psutil.CONN_LISTEN and address and pid is not None:
                with suppress(psutil.NoSuchProcess):
                    yield address.port, psutil.Process(pid)


def _started_before(process: psutil.Process, at: float) -> bool:
    try:
        return bool(process.create_time() < at)
    except psutil.Error:
        return False


def _line(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:100]}"
    except psutil.Error:
        return str(process.pid)
