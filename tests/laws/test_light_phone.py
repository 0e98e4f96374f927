"""The phone's import and a local answer load nothing heavy, and definitions do nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "transformers",
    "fastapi",
    "starlette",
    "uvicorn",
    "sqlalchemy",
    "datasets",
    "lab",
)

LOCAL_ANSWER = """
import json, sys
from mobile_client import MobileClient
with MobileClient(policy="mobile", bundle={bundle!r}, state_dir={state!r}) as phone:
    answer = phone.classify("a gripping, funny film")
    assert answer.tier == "mobile"
    phone.close(flush_s=0)
print(json.dumps(sorted(name.split(".")[0] for name in sys.modules)))
"""

MODULES = (
    "shared.errors",
    "shared.ledger.outbox",
    "mobile_client",
    "mobile_client.cli",
    "mobile_client.commands",
    "mobile_client.testbed",
    "edge_server.app",
    "cloud_server.app",
    "shared.ledger.app",
    "lab.cli",
)

QUIET_IMPORT = """
import builtins, os, sys, threading
import {module}  # once with everything allowed: libraries may read what they like
mine = [name for name in sys.modules
        if name.split(".")[0] in {{"shared", "mobile_client", "edge_server", "cloud_server", "lab"}}]
sources = {{name: sys.modules[name].__spec__ for name in mine}}
for name in mine:
    del sys.modules[name]
def refuse(*args, **kwargs):
    caller = sys._getframe(1).f_globals.get("__name__", "")
    if caller.split(".")[0] in {{"shared", "mobile_client", "edge_server", "cloud_server", "lab"}}:
        raise AssertionError(f"{{caller}} does something at import: {{args}}")
    return real_open(*args, **kwargs)
real_open, builtins.open = builtins.open, refuse
before = threading.active_count()
class Watched(dict):
    pass
import {module}
assert threading.active_count() == before, "a thread was started at import"
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_local_answer_loads_nothing_heavy(
    bundle: object, repository: Path, tmp_path: Path
) -> None:
    code = LOCAL_ANSWER.format(
        bundle=str(repository / "bundles" / "sst2-minilm"), state=str(tmp_path)
    )
    done = _run(code)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & set(HEAVY)
    assert "onnxruntime" in loaded


@pytest.mark.parametrize("module", MODULES)
def test_import_does_nothing_but_define(module: str) -> None:
    done = _run(QUIET_IMPORT.format(module=module))
    assert done.returncode == 0, done.stderr
