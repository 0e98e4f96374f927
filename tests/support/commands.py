"""Run the real ``dimee`` command: to its end, or ``dimee up`` in the background."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lab.data.examples import Example
from lab.evaluate.samples import samples_of_bundle
from shared.bundle.loading import Bundle
from shared.domain import InputText
from testbed.processes.children import start_child
from testbed.up import PORTS
from tests.support.paths import REPOSITORY, free_ports

COMMAND = str(Path(sys.executable).parent / "dimee")


def environment(settings: dict[str, object]) -> dict[str, str]:
    """Return the environment of a command: this checkout, one thread for torch, no hub.

    ``settings`` are variables without their prefix: ``{"bundle": folder}`` is ``DIMEE_BUNDLE``.
    """
    own = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return os.environ | own | {f"DIMEE_{name.upper()}": str(settings[name]) for name in settings}


def dimee(
    *arguments: object,
    folder: Path | None = None,
    status: int | None = None,
    stdin: str | bytes = b"",
    **settings: object,
) -> subprocess.CompletedProcess[str]:
    """Run ``dimee`` with ``arguments`` in ``folder``, and check its exit status if one is given."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=folder,
        env=environment(settings),
        input=stdin if isinstance(stdin, bytes) else stdin.encode(),
        capture_output=True,
        timeout=600,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert status in (None, done.returncode), out + err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def dimee_with(
    bundle: Bundle, state_dir: Path, *arguments: object, stdin: str | bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run ``dimee`` with a bundle and with its state in ``state_dir``."""
    return dimee(*arguments, stdin=stdin, bundle=bundle.path, state_dir=state_dir)


def port_options() -> list[str]:
    """Return options that give each role of a testbed a free port."""
    ports = zip(PORTS, free_ports(len(PORTS)), strict=True)
    return [text for role, port in ports for text in (f"--{role}-port", str(port))]


@dataclass(frozen=True)
class RunningUp:
    """A running ``dimee up``: addresses of its processes, and what it printed at its start."""

    urls: dict[str, str]
    printed: str

    @property
    def first_call(self) -> str:
        """The command that it prints for a first call."""
        command = re.search(r"^ +(curl .*)$", self.printed, re.MULTILINE)
        assert command is not None
        return command[1]

    def client(self) -> httpx.Client:
        """Return an HTTP client of the mobile's gateway; the caller closes it."""
        return httpx.Client(base_url=self.urls["mobile"], trust_env=False, timeout=60.0)


@contextmanager
def dimee_up(
    *arguments: object, folder: Path | None = None, **settings: object
) -> Iterator[RunningUp]:
    """Run ``dimee up`` on free ports in ``folder``; stop it with Ctrl-C at the end."""
    options = port_options()
    urls = {role: f"http://127.0.0.1:{options[2 * i + 1]}" for i, role in enumerate(PORTS)}
    process = start_child(
        [COMMAND, "up", *options, *map(str, arguments)],
        cwd=folder,
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        printed = ""
        for line in process.stdout:
            printed += line
            if "Ctrl-C stops them all" in line:
                break
        else:
            raise AssertionError(f"dimee up ended: {printed}")
        yield RunningUp(urls, printed)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    assert process.returncode == 0


def direct_answers(bundle: Bundle, texts: Sequence[InputText]) -> list[str]:
    """Return the label of the last exit for each text, from the bundle's layers alone."""
    rows = [Example(text.text, text.pair, 0) for text in texts]
    samples = samples_of_bundle(bundle, rows)
    return [bundle.manifest.labels[i] for i in samples.answers_NE[:, -1]]


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV with a header."""
    content = io.StringIO()
    writer = csv.DictWriter(content, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue()


def write_times(file: Path, count: int, rate: float = 30.0) -> Path:
    """Write a file of ``count`` send times for ``dimee load --arrivals``, and return it."""
    file.write_text("".join(f"{number / rate}\n" for number in range(count)))
    return file
