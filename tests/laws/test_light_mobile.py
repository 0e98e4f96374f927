"""The mobile's import and a local answer load nothing heavy, and definitions do nothing."""

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
with MobileClient(policy="mobile", bundle={bundle!r}, state_dir={state!r}) as mobile:
    answer = mobile.classify("a gripping, funny film")
    assert answer.tier == "mobile"
    mobile.close(flush_s=0)
print(json.dumps(sorted(name.split(".")[0] for name in sys.modules)))
"""

MODULES = (
    "shared.errors",
    "shared.ledger.outbox",
    "mobile_client",
    "mobile_client.cli.main",
    "mobile_client.cli.classify",
    "testbed.up",
    "mobile_client.cli.status",
    "edge_server.app",
    "cloud_server.app",
    "shared.ledger.server.app",
    "lab.cli.train",
)

ROOMS = ("shared", "mobile_client", "edge_server", "cloud_server", "lab")

QUIET_IMPORT = """
import builtins, os, sys, threading
import {module}  # once with everything allowed: libraries may do what they like

def of_a_room(name):
    return name.split(".")[0] in {rooms!r}

for name in [name for name in sys.modules if of_a_room(name)]:
    del sys.modules[name]

def watched(what, real):
    def call(*args, **kwargs):
        if of_a_room(sys._getframe(1).f_globals.get("__name__", "")):
            raise AssertionError(f"{{what}} at import: {{args}}")
        return real(*args, **kwargs)
    return call

builtins.open = watched("a file is opened", builtins.open)
os.getenv = watched("the environment is read", os.getenv)
type(os.environ).__getitem__ = watched("the environment is read", type(os.environ).__getitem__)
threads = threading.active_count()
import {module}
assert threading.active_count() == threads, "a thread is started at import"
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
    done = _run(QUIET_IMPORT.format(module=module, rooms=ROOMS))
    assert done.returncode == 0, done.stderr


def test_the_law_would_notice(tmp_path: Path) -> None:
    """The check above fails for a room that reads the environment."""
    (tmp_path / "lab.py").write_text("import os\nHOME = os.environ['PATH']\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = _run(code + QUIET_IMPORT.format(module="lab", rooms=ROOMS))
    assert "the environment is read at import" in done.stderr
