"""Preparation of the benchmark: virtual environments of the other servers, and their models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from shared.bundle.loading import Bundle
from shared.errors import DimeeError
from shared.extras import install_command
from testbed.bench.peers import Peer
from testbed.processes.children import run_watched

Report = Callable[[str], None]
MODELS = ("fp32", "transformers", "onnx", "onnx-int8")
INSTALLED = "dimee-installed.json"


def make_venvs(peers: Sequence[Peer], folder: Path, report: Report) -> None:
    """Make a virtual environment for each peer that lacks one; raises `DimeeError`."""
    for peer in peers:
        if peer.venv is not None and peer.installs:
            make_venv(peer.venv, peer.installs, folder, report)


def make_venv(
    name: str, installs: Sequence[Sequence[str]], folder: Path, report: Report = print
) -> Path:
    """Make a virtual environment by calls of pip, unless the same calls made it before."""
    venv = folder / name
    calls = json.dumps(installs)
    installed = venv / INSTALLED
    if installed.is_file() and installed.read_text() == calls:
        return venv
    report(f"installing {name} in {venv} …")
    shutil.rmtree(venv, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(venv)], name)
    for arguments in installs:
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, "--disable-pip-version-check", *arguments], name)
    installed.write_text(calls)
    return venv


def make_models(bundle: Bundle, folder: Path) -> dict[str, Path]:
    """Return the folder of each model by name: ``shipped`` is the bundle, the others are copies.

    The lab writes the copies in a process of its own, since the testbed imports no torch.
    """
    folder = folder / bundle.bundle_id
    arguments = [str(bundle.path.resolve()), str(folder.resolve())]
    try:
        _run([sys.executable, "-m", "lab.export.peer_models", *arguments], "models")
    except DimeeError as error:
        raise DimeeError(f"{error.message}; this needs: {install_command('lab')}") from None
    return {"shipped": bundle.path} | {name: folder / name for name in MODELS}


def _run(command: list[str], name: str) -> None:
    done = run_watched(command, stderr=subprocess.PIPE)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it printed nothing").splitlines()[-1]
        raise DimeeError(f"{name}: {' '.join(command[:4])} … failed: {last}")
