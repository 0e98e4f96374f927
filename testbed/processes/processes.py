"""The processes of a testbed on loopback."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from shared.credentials import Credentials
from shared.errors import DimeeError, NotReady
from testbed.processes.children import start_child, stop_all
from testbed.processes.ports import is_free
from testbed.processes.state_lock import locked_state


@dataclass(frozen=True)
class Role:
    """A process to start: the module that serves, its port, and its own ``DIMEE_*`` settings.

    ``tier`` is the name of the tier of which it is one of several replicas.
    """

    name: str
    module: str
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    scheme: str = "http"
    tier: str = ""

    @property
    def url(self) -> str:
        """Address of the process."""
        return f"{self.scheme}://127.0.0.1:{self.port}"


class Testbed:
    """Processes that run together; as a context manager it stops all of them at the end.

    While it is open, no other testbed can use its state folder.

    ``settings`` are ``DIMEE_*`` variables for every process; ``credentials`` are those with which
    the testbed's own requests are sent.
    """

    __test__ = False
    """Tells pytest that this class, whose name begins with Test, holds no tests."""

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
        self._held = ExitStack()

    def log(self, name: str) -> Path:
        """Return the file that holds a process's output."""
        return self.state_dir / f"{name}.log"

    def start(self, name: str) -> None:
        """Start one process, which ends when this one ends."""
        role = self.roles[name]
        self.state_dir.mkdir(parents=True, exist_ok=True)
        environment = os.environ | self._settings
        environment |= {"DIMEE_STATE_DIR": str(self.state_dir)} | role.settings
        environment |= {
            "DIMEE_PORT": str(role.port),
            "DIMEE_HOST": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
        }
        with self.log(name).open("ab") as log:
            self.processes[name] = start_child(
                ["-m", role.module],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start_all(self, timeout_s: float = 60.0) -> None:
        """Start every process and wait until all are ready."""
        for name, role in self.roles.items():
            if not is_free(role.port):
                raise DimeeError(
                    f"port {role.port} for the {role.name} is taken; stop what uses it, "
                    f"or choose another with --{role.tier or role.name}-port"
                )
            self.start(name)
        for name in self.roles:
            self.wait_ready(name, timeout_s)

    def wait_ready(self, name: str, timeout_s: float = 60.0) -> None:
        """Wait until a process is ready, and reaches those tiers of ``roles`` that it uses.

        Raises `DimeeError` with the last line of its output if it ends, `NotReady` at the time-out.
        """
        process, waits_for = self.processes[name], "its address"
        until = time.monotonic() + timeout_s
        with httpx.Client(trust_env=False, timeout=2.0, verify=self.credentials.verify) as http:
            while time.monotonic() < until:
                if process.poll() is not None:
                    raise DimeeError(f"the {name} did not start: {self._last_line(name)}")
                with suppress(httpx.TransportError):
                    waits_for = self._waits_for(http.get(f"{self.roles[name].url}/readyz"))
                    if not waits_for:
                        return
                time.sleep(0.05)
        raise NotReady(
            f"the {name} was not ready after {timeout_s:.0f} s: it waits for {waits_for}; "
            f"see {self.log(name)}"
        )

    def _waits_for(self, response: httpx.Response) -> str:
        """Return what a process waits for by its answer to ``/readyz``; empty if it is ready."""
        if response.status_code != httpx.codes.OK:
            return "its bundle or its store"
        readiness = response.json().get("tiers") or {}
        started = {role.tier or role.name for role in self.roles.values()}
        return ", ".join(
            f"the {tier}" for tier in readiness if tier in started and readiness[tier] != "ready"
        )

    def kill(self, name: str) -> None:
        """Kill one process (SIGKILL), as a crash would end it."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        """Stop every process and wait for it; callers end before the servers that they call.

        A second Ctrl-C or SIGTERM in the meantime kills them.
        """
        stop_all(self.processes[name] for name in reversed(self.roles) if name in self.processes)

    def _last_line(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it printed nothing; see {self.log(name)}"

    def __enter__(self) -> Self:
        self._held.enter_context(locked_state(self.state_dir))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._held:
            self.stop()
