"""What the benchmark needs before it starts: virtual environments and everybody's model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from shared.bundle.loading import Bundle
from shared.errors import DimeeError
from testbed.bench.peers import Peer
from testbed.bench.weights import (
    write_dynamic_int8,
    write_fp32_bundle,
    write_onnx,
    write_peer_model,
)

Say = Callable[[str], None]
MODELS = ("shipped", "fp32", "transformers", "onnx", "onnx-int8")
MARK = "dimee-installed.json"


def make_venvs(peers: Sequence[Peer], folder: Path, say: Say) -> None:
    """A virtual environment for each peer, kept for the next time; raises `DimeeError`."""
    for peer in peers:
        if peer.venv is not None and peer.installs:
            make_venv(peer.venv, peer.installs, folder, say)


def make_venv(name: str, installs: Sequence[Sequence[str]], folder: Path, say: Say = print) -> Path:
    """One of them: made by pip's calls ``installs``, unless the same calls made it before."""
    place = folder / name
    wanted = json.dumps(installs)
    mark = place / MARK
    if mark.is_file() and mark.read_text() == wanted:
        return place
    say(f"installing {name} in {place} …")
    shutil.rmtree(place, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(place)], name)
    for arguments in installs:
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, "--disable-pip-version-check", *arguments], name)
    mark.write_text(wanted)
    return place


def make_models(bundle: Bundle, folder: Path, say: Say) -> dict[str, Path]:
    """A folder for each of `MODELS`: the bundle as shipped, in fp32, for transformers, as ONNX."""
    models = {name: folder / bundle.bundle_id / name for name in MODELS}
    models["shipped"] = bundle.path
    if not models["fp32"].exists():
        say("writing the same weights in fp32 …")
        write_fp32_bundle(bundle, models["fp32"])
    if not models["transformers"].exists():
        write_peer_model(bundle, models["transformers"])
    if not models["onnx"].exists():
        say("exporting them as ONNX …")
        write_onnx(models["transformers"], models["onnx"])
    if not models["onnx-int8"].exists():
        write_dynamic_int8(models["onnx"], models["onnx-int8"])
    return models


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise DimeeError(f"{what}: {' '.join(command[:4])} … failed: {last}")
