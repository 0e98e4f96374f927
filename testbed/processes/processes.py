"""The testbed's processes: started on loopback, awaited, and ended by their own handles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from shared.credentials import Credentials
from shared.errors import DimeeError, NotReady

STOP_S = 10.0


@dataclass(frozen=True)
class Role:
    """A process of the testbed: the module that serves, its port and its own settings."""

    name: str
    module: str
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Its address on loopback."""
        return f"{self.scheme}://127.0.0.1:{self.port}"


class Testbed:
    """The four processes. As a context manager it leaves none of them behind."""

    __test__ = False
    """Not a test, whatever its name says to a test runner."""

    def __init__(
        self,
        roles: list[Role],
        state_dir: Path,
        settings: dict[str, str],
        credentials: Credentials | None = None,
    ) -> None:
        self.roles = {role.name: role for role in roles}
        self.state_dir = state_dir
        self._settings = settings
        self.credentials = credentials or Credentials()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        """Where a process writes what it has to say."""
        return self.state_dir / f"{name}.log"

    def start(self, name: str) -> None:
        """Start one process, in a session of its own: Ctrl-C reaches the caller only."""
        role = self.roles[name]
        self.state_dir.mkdir(parents=True, exist_ok=True)
        environment = os.environ | self._settings | role.settings
        environment |= {
            "DIMEE_PORT": str(role.port),
            "DIMEE_HOST": "127.0.0.1",
            "DIMEE_STATE_DIR": str(self.state_dir),
            "PYTHONUNBUFFERED": "1",
        }
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", role.module],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_all(self, timeout_s: float = 60.0) -> None:
        """Start every process and wait until all are ready."""
        for name, role in self.roles.items():
            _refuse_taken_port(role)
            self.start(name)
        for name in self.roles:
            self.wait_ready(name, timeout_s)

    def wait_ready(self, name: str, timeout_s: float = 60.0) -> None:
        """Wait until a process says that it is ready; its last words are the error if it ends."""
        role, process = self.roles[name], self.processes[name]
        until = time.monotonic() + timeout_s
        with httpx.Client(trust_env=False, timeout=2.0, verify=self.credentials.verify) as http:
            while time.monotonic() < until:
                if process.poll() is not None:
                    raise DimeeError(f"the {name} did not start: {self._last_words(name)}")
                try:
                    if http.get(f"{role.url}/readyz").status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        raise NotReady(f"the {name} was not ready after {timeout_s:.0f} s; see {self.log(name)}")

    def kill(self, name: str) -> None:
        """End one process at once, as a crash would (SIGKILL)."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        """Ask every process to end, callers before those whom they call, and wait for each."""
        for name in reversed(self.roles):
            process = self.processes.get(name)
            if process is None or process.poll() is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def dead(self) -> str | None:
        """The name of a process that ended by itself, if one did."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                return name
        return None

    def _last_words(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it said nothing; see {self.log(name)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _refuse_taken_port(role: Role) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", role.port))
        except OSError:
            raise DimeeError(
                f"port {role.port} for the {role.name} is taken; stop what uses it, "
                f"or choose another with --{role.name}-port"
            ) from None
