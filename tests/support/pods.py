"""Pods as processes of this machine: what the kubelet makes of the manifests, without a cluster.

A pod runs the command of its image with the variables of its manifest. Its Secrets are files, its
volume is a folder, and the names of Services become loopback addresses.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from shared.credentials import Credentials
from testbed.processes.children import start_child, stop_all
from tests.support.kubernetes import (
    Manifest,
    container,
    environment,
    named,
    volume_files,
    workloads,
)
from tests.support.paths import REPOSITORY, free_ports

PODS = {"ledger": "ledger-0", "cloud": "cloud-0", "edge": "edge-0", "mobile": "mobile-0"}
"""The first pod of each workload, in the order of their start."""


class Pods:
    """One pod of each service; ``changed`` are variables that the test sets for all of them."""

    def __init__(
        self, manifests: list[Manifest], secrets: Path, folder: Path, **changed: str
    ) -> None:
        self._manifests = manifests
        self._secrets = secrets
        self._folder = folder
        self._changed = changed
        self._workloads = workloads(manifests)
        self.ports = dict(zip(PODS, free_ports(len(PODS)), strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # the kubelet does not check certificates
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        self._kubelet = httpx.Client(verify=unchecked, trust_env=False)

    def url(self, name: str) -> str:
        """Return the address of a service."""
        return f"https://127.0.0.1:{self.ports[name]}"

    def credentials(self, token: str) -> Credentials:
        """Return the credentials of a caller with one of the deployment's tokens."""
        return Credentials(token_file=self._secrets / f"{token}.token", ca=self._secrets / "ca.crt")

    def log(self, name: str) -> str:
        """Return what a pod has printed."""
        return (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def start(self, name: str) -> None:
        """Start a pod with its variables, files and volume; an earlier one's volume is kept."""
        files = self._folder / "files" / name
        for path, content in volume_files(self._manifests, self._workloads[name]).items():
            self._mount(files / path.lstrip("/"), content)
        state = self._folder / "volumes" / PODS[name]
        state.mkdir(parents=True, exist_ok=True)
        variables = {
            variable: self._on_this_machine(value, files, state)
            for variable, value in environment(
                self._manifests, self._workloads[name], PODS[name]
            ).items()
        }
        variables |= {"DIMEE_PORT": str(self.ports[name])} | self._changed
        others = {key: value for key, value in os.environ.items() if key[:6] != "DIMEE_"}
        with (self._folder / f"{name}.log").open("ab") as log:
            self.processes[name] = start_child(
                image_command(name)[1:],
                env=others | variables | {"PYTHONUNBUFFERED": "1"},
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _on_this_machine(self, value: str, files: Path, state: Path) -> str:
        for service, manifest in named(self._manifests, "Service").items():
            target = manifest["spec"]["selector"]["app.kubernetes.io/component"]
            if target in self.ports:
                value = re.sub(rf"https://{service}:\d+", self.url(target), value)
        value = re.sub(r"^/secrets/", f"{files}/secrets/", value)
        return re.sub(r"^/state/", f"{state}/", value)

    @staticmethod
    def _mount(folder: Path, content: dict[str, bytes]) -> None:
        # as the kubelet does: the files are links into a folder that it replaces
        if folder.exists():
            return
        (folder / "..2026").mkdir(parents=True)
        (folder / "..data").symlink_to("..2026")
        for name, data in content.items():
            (folder / "..2026" / name).write_bytes(data)
            (folder / "..2026" / name).chmod(0o440)
            (folder / name).symlink_to(f"..data/{name}")

    def probe(self, name: str, kind: str) -> tuple[bool, str]:
        """Ask a pod as the kubelet does; return whether it passes, and what it said."""
        probe = container(self._workloads[name])[kind]
        try:
            answer = self._kubelet.get(
                self.url(name) + probe["httpGet"]["path"], timeout=probe["timeoutSeconds"]
            )
        except httpx.TransportError as error:
            return False, repr(error)
        return 200 <= answer.status_code < 400, answer.text

    def wait_started(self, name: str) -> None:
        """Wait for the start as the kubelet does: startup probe, then readiness probe."""
        for kind in ("startupProbe", "readinessProbe"):
            probe, said = container(self._workloads[name])[kind], ""
            for _ in range(max(probe["failureThreshold"], 30)):
                passed, said = self.probe(name, kind)
                if passed:
                    break
                assert self.processes[name].poll() is None, self.log(name)
                time.sleep(min(1.0, probe["periodSeconds"]))
            else:
                raise AssertionError(f"the {kind} of {name} fails: {said}\n{self.log(name)}")

    def kill(self, name: str) -> None:
        """End a pod as a crash of its node would."""
        self.processes[name].kill()
        self.processes[name].wait()

    def readiness(self, name: str) -> Any:
        """Return what a ready pod answers to its readiness probe."""
        passed, said = self.probe(name, "readinessProbe")
        assert passed, said
        return json.loads(said)

    def __enter__(self) -> Self:
        try:
            for name in PODS:
                self.start(name)
            for name in PODS:
                self.wait_started(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop all pods; callers end before the services that they call."""
        stop_all([self.processes[name] for name in reversed(PODS) if name in self.processes])
        self._kubelet.close()


def image_command(name: str) -> list[str]:
    """Return the command of a service's image."""
    text = (REPOSITORY / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(rf" AS {name}\n(?:(?!FROM ).*\n)*?CMD (\[.*\])\n", text)
    assert found is not None
    command: list[str] = json.loads(found[1])
    assert command[0] == "python"
    return command
