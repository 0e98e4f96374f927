"""Run commands of ``dimee`` as processes, and compare their answers with a bundle's layers."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.data.examples import Example
from lab.evaluate.samples import samples_of_bundle
from shared.bundle.loading import Bundle
from shared.domain import InputText
from testbed.up import PORTS
from tests.support.paths import free_ports

DIMEE = (sys.executable, "-m", "mobile_client.cli.main")


def dimee(
    bundle: Bundle, folder: Path, *arguments: str, stdin: str | bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run a command with a bundle and with its state in ``folder``."""
    done = subprocess.run(
        [*DIMEE, *arguments],
        env=os.environ | {"DIMEE_BUNDLE": str(bundle.path), "DIMEE_STATE_DIR": str(folder)},
        input=stdin if isinstance(stdin, bytes) else stdin.encode(),
        capture_output=True,
        timeout=240,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def port_options() -> list[str]:
    """Return options that give each role of a testbed a free port."""
    ports = zip(PORTS, free_ports(len(PORTS)), strict=True)
    return [text for role, port in ports for text in (f"--{role}-port", str(port))]


@contextmanager
def running_up(bundle: Bundle, folder: Path) -> Iterator[str]:
    """Run ``dimee up`` and yield the command that it prints for a first call."""
    process = subprocess.Popen(
        [*DIMEE, "up", "--state-dir", str(folder), *port_options()],
        # a queue that never refuses
        env=os.environ | {"DIMEE_BUNDLE": str(bundle.path), "DIMEE_MAX_QUEUE_MS": "600000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        printed = b""
        while not printed.startswith(b"  curl "):
            printed = process.stdout.readline()
            assert printed, "dimee up ended and printed no command"
        yield printed.decode().strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


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
