"""The testbed under load: one started for the run (``dimee up`` as a process), or a running one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.addresses import check_address
from shared.errors import DimeeError, InvalidInput
from shared.link_control import LinkControl
from shared.testbed_file import TESTBED_FILE, read_testbed_file
from testbed.links.probe import measure
from testbed.processes.children import start_child, stop_all
from testbed.processes.ports import free_ports
from testbed.processes.temporary import temporary_folder

START_S = 180.0
STOP_S = 30.0
ALLOWED_HOSTS = ("mobile", "ledger", "localhost")
"""Hosts that may be loaded besides loopback addresses: those in docker-compose.yml."""


@dataclass(frozen=True, slots=True)
class LoadTarget:
    """Addresses of gateway and ledger, and the links that can be changed.

    ``specs`` are the links as they were at the start. ``folder`` is the state folder of a testbed
    that this process has started, and None for any other.
    """

    url: str
    ledger_url: str
    links: Mapping[str, LinkControl] = field(default_factory=dict)
    specs: Mapping[str, str] = field(default_factory=dict)
    measurements: tuple[dict[str, Any], ...] = ()
    folder: Path | None = None

    def role(self, name: str) -> dict[str, Any]:
        """Return address and process id of a role now; a restarted process has a new id."""
        if self.folder is None:
            raise DimeeError(
                "only processes of a testbed of this command can be killed; "
                "leave out --url and --state-dir"
            )
        return dict(read_testbed_file(self.folder)["roles"][name])

    def kill(self, role: str) -> None:
        """Kill a process (SIGKILL)."""
        os.kill(int(self.role(role)["pid"]), signal.SIGKILL)

    def set_link(self, hop: str, spec: str | None) -> None:
        """Change a link; None restores the link of the start."""
        self.links[hop].change(spec or self.specs[hop])

    def measure_links(self, allow_unverified: bool) -> list[dict[str, Any]]:
        """Return a measurement of each link; raises `LinkUnverified` unless ``allow_unverified``.

        A testbed that this process started has just measured its links; those figures are returned.
        """
        if self.folder is not None:
            return list(self.measurements)
        measurements = [measure(control) for control in self.links.values()]
        if not allow_unverified:
            for measurement in measurements:
                measurement.raise_if_unverified()
        return [measurement.as_json() for measurement in measurements]


@contextmanager
def start_testbed(
    links: Mapping[str, str],
    seed: int,
    restart_after_s: float | None = None,
    options: tuple[str, ...] = (),
    settings: Mapping[str, str] | None = None,
    stop_with: signal.Signals = signal.SIGTERM,
) -> Iterator[LoadTarget]:
    """Start ``dimee up`` on free ports, and stop it at the end with the signal ``stop_with``.

    ``options`` are more options of ``dimee up``, ``settings`` are environment variables.
    """
    with temporary_folder("load") as folder:
        arguments = ["--state-dir", str(folder), "--link-seed", str(seed), *options]
        for hop, spec in links.items():
            arguments += ["--link", f"{hop}={spec}"]
        if restart_after_s is not None:
            arguments += ["--restart-after", f"{restart_after_s:g}"]
        for role, port in zip(("ledger", "mobile", "edge", "cloud"), free_ports(4), strict=True):
            arguments += [f"--{role}-port", str(port)]
        with (folder / "up.log").open("wb") as log:
            process = start_child(
                ["-m", "shared.command", "up", *arguments],
                env=os.environ | dict(settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            _wait_until_ready(folder, process)
            yield find_testbed(folder, started_here=True)
        finally:
            stop_all([process], stop_with, STOP_S, STOP_S)


def _wait_until_ready(folder: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while not (folder / TESTBED_FILE).exists():
        if process.poll() is not None or time.monotonic() > until:
            lines = (folder / "up.log").read_text(errors="replace").strip().splitlines()
            last = lines[-1].removeprefix("dimee: ") if lines else "it printed nothing"
            raise DimeeError(f"the testbed did not start: {last}")
        time.sleep(0.05)


def find_testbed(folder: Path, started_here: bool = False) -> LoadTarget:
    """Return the testbed that runs with this state folder; raises `DimeeError` if none does."""
    facts = read_testbed_file(folder)
    links = facts["links"]
    return LoadTarget(
        facts["roles"]["mobile"]["url"],
        facts["roles"]["ledger"]["url"],
        {hop: LinkControl(hop, link["control"]) for hop, link in links.items()},
        {hop: link["spec"] for hop, link in links.items()},
        tuple(link["measurement"] for link in links.values()),
        folder if started_here else None,
    )


def check_url(url: str, allow_remote: bool) -> str:
    """Return the URL without a trailing slash if it may be loaded; raises `InvalidInput`."""
    host = urlsplit(check_address(url, "--url")).hostname or ""
    if host in ALLOWED_HOSTS or _is_loopback(host) or allow_remote:
        return url.rstrip("/")
    raise InvalidInput(
        f"--url: {host[:60]!r} is neither loopback nor a container of the testbed; load only "
        "servers of your own, and confirm it with --allow-remote"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
