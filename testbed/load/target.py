"""The testbed under load: one of its own (``dimee up`` as a process), or one that stands."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.errors import DimeeError, InvalidInput
from testbed.links.client import LinkControl
from testbed.links.probe import measure

START_S = 180.0
STOP_S = 30.0
OURS = ("mobile", "ledger", "localhost")
"""Names that may be loaded besides loopback: those in docker-compose.yml."""


@dataclass(frozen=True, slots=True)
class Bed:
    """Where to send, where the ledger is, and what can be broken."""

    url: str
    ledger_url: str
    links: Mapping[str, LinkControl]
    words: Mapping[str, str]
    measured: tuple[dict[str, Any], ...] = ()
    folder: Path | None = None

    def kill(self, role: str) -> None:
        """End a process of our own testbed at once (SIGKILL)."""
        if self.folder is None:
            raise DimeeError("the testbed is not ours to kill; leave out --url")
        # its id is read when it is used: a process that came back has another one
        os.kill(int(_facts(self.folder)["roles"][role]["pid"]), signal.SIGKILL)

    def set_link(self, hop: str, words: str | None) -> None:
        """Change a link; None: as it was at the start."""
        self.links[hop].change(words or self.words[hop])

    def measure(self, allow_unverified: bool) -> list[dict[str, Any]]:
        """Every link against its label; raises `LinkOff` unless ``allow_unverified``.

        Our own testbed has measured its links a moment ago, when it started.
        """
        if self.folder is not None:
            return list(self.measured)
        found = [measure(control) for control in self.links.values()]
        if not allow_unverified:
            for one in found:
                one.refuse()
        return [one.as_json() for one in found]


@contextmanager
def own_bed(
    links: Mapping[str, str],
    seed: int,
    restart_after_s: float | None,
    extra: tuple[str, ...] = (),
    settings: Mapping[str, str] | None = None,
) -> Iterator[Bed]:
    """Start ``dimee up`` on free ports, and end it afterwards, whatever happens.

    ``settings`` are ``DIMEE_*`` variables beside those of the environment.
    """
    with tempfile.TemporaryDirectory(prefix="dimee-load-") as name:
        folder = Path(name)
        options = ["--state-dir", str(folder), "--link-seed", str(seed), *extra]
        for hop, words in links.items():
            options += ["--link", f"{hop}={words}"]
        if restart_after_s is not None:
            options += ["--restart-after", f"{restart_after_s:g}"]
        for role, port in zip(("ledger", "mobile", "edge", "cloud"), free_ports(4), strict=True):
            options += [f"--{role}-port", str(port)]
        with (folder / "up.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mobile_client.cli.main", "up", *options],
                env=os.environ | dict(settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield _stands(folder, process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _stands(folder: Path, process: subprocess.Popen[bytes]) -> Bed:
    until = time.monotonic() + START_S
    while not (folder / "testbed.json").exists():
        if process.poll() is not None or time.monotonic() > until:
            said = (folder / "up.log").read_text(errors="replace").strip().splitlines()
            last = said[-1].removeprefix("dimee: ") if said else "it said nothing"
            raise DimeeError(f"the testbed did not start: {last}")
        time.sleep(0.05)
    return standing_bed(folder, ours=True)


def standing_bed(folder: Path, ours: bool = False) -> Bed:
    """A testbed by its state directory; only one of our own may be killed."""
    facts = _facts(folder)
    links = facts["links"]
    return Bed(
        facts["roles"]["mobile"]["url"],
        facts["roles"]["ledger"]["url"],
        {hop: LinkControl(hop, one["control"]) for hop, one in links.items()},
        {hop: one["words"] for hop, one in links.items()},
        tuple(one["measured"] for one in links.values()),
        folder if ours else None,
    )


def check_url(url: str, allow_remote: bool) -> str:
    """The url if it may be loaded; raises `InvalidInput`."""
    try:
        parts = urlsplit(url)
        host, sound = parts.hostname or "", parts.scheme in ("http", "https")
    except ValueError:
        host, sound = "", False
    if not sound or not host:
        raise InvalidInput(f"--url: {url[:60]!r} is no address; give http://HOST:PORT")
    if host in OURS or _loopback(host) or allow_remote:
        return url.rstrip("/")
    raise InvalidInput(
        f"--url: {host[:60]!r} is neither loopback nor the testbed's own container; "
        "load only what is yours, and say so with --allow-remote"
    )


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _facts(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "testbed.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise DimeeError(f"no testbed stands at {folder}; start one with: dimee up") from None


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
