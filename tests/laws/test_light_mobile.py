"""The mobile loads no heavy library, and importing a module has no side effects."""

from __future__ import annotations

import ctypes.util
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
    "prometheus_client",
    "opentelemetry",
    "sqlalchemy",
    "datasets",
    "ray",
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
    "shared.ray_serve.cli",
    "lab.cli.train",
)

PACKAGES = ("shared", "mobile_client", "edge_server", "cloud_server", "lab", "testbed")

QUIET_IMPORT = """
import builtins, os, sys, threading
import {module}  # the first import, in which libraries may read and start anything

def is_own(name):
    return name.split(".")[0] in {packages!r}

for name in [name for name in sys.modules if is_own(name)]:
    del sys.modules[name]

def forbidden(action, real):
    def call(*args, **kwargs):
        if is_own(sys._getframe(1).f_globals.get("__name__", "")):
            raise AssertionError(f"{{action}} at import: {{args}}")
        return real(*args, **kwargs)
    return call

builtins.open = forbidden("a file is opened", builtins.open)
os.getenv = forbidden("the environment is read", os.getenv)
type(os.environ).__getitem__ = forbidden("the environment is read", type(os.environ).__getitem__)
threads = threading.active_count()
import {module}
assert threading.active_count() == threads, "a thread is started at import"
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_local_answer_loads_no_heavy_library(
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


LAYERS_ON_THE_CPU = """
import sys
import cloud_server.app
import shared.inference.batcher_worker
from shared.bundle.loading import load_bundle
from shared.domain import LayerRange
from shared.inference.classifier import Classifier
from shared.inference.devices import choose_devices
(device,) = choose_devices("auto", 1, True)
assert device.runtime == "onnx"
Classifier(load_bundle({bundle!r}), LayerRange(1, 1), device=device).warm_up()
assert not {{"torch", "onnx"}} & set(sys.modules), "torch is imported without being asked for"
"""


def test_tier_on_the_cpu_loads_no_torch(repository: Path) -> None:
    if ctypes.util.find_library("cuda"):
        pytest.skip("this machine has NVIDIA's driver")
    done = _run(LAYERS_ON_THE_CPU.format(bundle=str(repository / "bundles" / "sst2-minilm")))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_import_has_no_side_effect(module: str) -> None:
    done = _run(QUIET_IMPORT.format(module=module, packages=PACKAGES))
    assert done.returncode == 0, done.stderr


def test_no_module_but_the_deployment_loads_ray() -> None:
    """Ray is loaded by `shared.ray_serve.deployment` and the modules that a config file names."""
    modules = [*MODULES, "shared.ray_serve.options", "shared.ray_serve.replica_slots"]
    done = _run(
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        "print('ray' in sys.modules)"
    )
    assert done.stdout.strip() == "False", done.stderr


def test_side_effect_at_import_is_detected(tmp_path: Path) -> None:
    """The check above fails for a package that reads the environment."""
    (tmp_path / "lab.py").write_text("import os\nHOME = os.environ['PATH']\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = _run(code + QUIET_IMPORT.format(module="lab", packages=PACKAGES))
    assert "the environment is read at import" in done.stderr
