"""CPU time of a ledger and its PostgreSQL server, on which other work has little influence."""

from __future__ import annotations

from pathlib import Path

import psutil


class CpuMeter:
    """CPU seconds of a ledger's process, and of a PostgreSQL server with all its processes."""

    def __init__(self, ledger: int, postgres_data: Path) -> None:
        postmaster = (postgres_data / "postmaster.pid").read_text().splitlines()[0]
        self._ledger = psutil.Process(ledger)
        self._postgres = psutil.Process(int(postmaster))

    def read(self) -> dict[str, float]:
        """Return the seconds until now: ``ledger`` and ``postgresql``."""
        own = self._ledger.cpu_times()
        server = self._postgres.cpu_times()
        seconds = server.user + server.system + server.children_user + server.children_system
        for child in self._postgres.children():
            times = child.cpu_times()
            seconds += times.user + times.system
        return {"ledger": own.user + own.system, "postgresql": seconds}
