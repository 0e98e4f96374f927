"""Commands of an installation without extras name the extra, and how to install it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shared.extras import PACKAGES, imports_of, missing_extra
from tests.support.paths import BUNDLE, REPOSITORY

WITHOUT_EXTRAS = """
import runpy, sys
from importlib.machinery import PathFinder
blocked = set(sys.argv[1].split(","))

class WithoutExtras(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras
module, *sys.argv = sys.argv[2:]
sys.argv.insert(0, "dimee")
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
BLOCKED = ",".join(sorted({name for names in PACKAGES.values() for name in names}))
IMPORT_NAMES = {"scikit-learn": "sklearn", "grpcio": "grpc", "protobuf": "google"}
COMES_WITH_ANOTHER = {"starlette", "markupsafe"}
ALL = "pip install -e '.[service,ledger,testbed]'"


def run(module: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, BLOCKED, module, *arguments],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": str(REPOSITORY),
            "DIMEE_STATE_DIR": str(folder / "state"),
            "DIMEE_BUNDLE": str(BUNDLE),
        },
        capture_output=True,
        text=True,
    )


def test_packages_are_those_of_the_project_file() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for extra, packages in PACKAGES.items():
        needed = set()
        for requirement in project["optional-dependencies"][extra]:
            name = requirement.split("[")[0].split(">")[0].split("=")[0].strip()
            needed.add(IMPORT_NAMES.get(name, name.replace("-", "_")))
        assert needed == set(packages) - COMES_WITH_ANOTHER, extra


@pytest.mark.parametrize(
    ("arguments", "install"),
    [
        (["up"], ALL),
        (["demo"], ALL),
        (["load"], ALL),
        (["bench"], ALL),
        (["ledger", "export", "x.csv"], "pip install -e '.[ledger]'"),
        (["train", "--data", ".", "--out", "x"], "pip install -e '.[lab]'"),
        (["pools", "x"], "pip install -e '.[lab]'"),
        (["export", "x", "y"], "pip install -e '.[lab]'"),
        (["outputs", "x", "--out", "y"], "pip install -e '.[lab]'"),
        (["evaluate", "x"], "pip install -e '.[lab]'"),
        (["calibrate", "x", "--max-drop", "1"], "pip install -e '.[lab]'"),
        (["average-weights", "x", "y", "--out", "z"], "pip install -e '.[lab]'"),
        (["fit-temperatures", "x", "--out", "y"], "pip install -e '.[lab]'"),
    ],
)
def test_command_names_its_extra(arguments: list[str], install: str, tmp_path: Path) -> None:
    done = run("shared.command", *arguments, folder=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("dimee: ")
    assert "which this installation leaves out; in the clone of the repository, run: " in last
    assert last.endswith(install)


@pytest.mark.parametrize(
    ("module", "install"),
    [
        ("edge_server", "pip install -e '.[service]'"),
        ("cloud_server", "pip install -e '.[service]'"),
        ("mobile_client", "pip install -e '.[service]'"),
        ("shared.ledger.server", "pip install -e '.[service,ledger]'"),
    ],
)
def test_server_names_its_extra(module: str, install: str, tmp_path: Path) -> None:
    done = run(module, folder=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("dimee: the ")
    assert line.endswith(install)


@pytest.mark.parametrize(
    ("module", "install"),
    [
        ("testbed.chaos.soak", ALL),
        ("testbed.chaos.overload", ALL),
        ("testbed.load.link_accuracy", ALL),
        ("lab.studies.exits", "pip install -e '.[lab]'"),
        ("lab.reports", "pip install -e '.[lab]'"),
        ("lab.export.peer_models", "pip install -e '.[lab]'"),
    ],
)
def test_program_names_its_extra(module: str, install: str, tmp_path: Path) -> None:
    done = run(module, "--help", folder=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.startswith(f"dimee: {module.rpartition('.')[0]}")
    assert line.endswith(f"run: {install}")


def test_help_lists_what_is_not_installed(tmp_path: Path) -> None:
    done = run("shared.command", "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_fault_of_our_own_is_no_missing_extra() -> None:
    assert missing_extra(ModuleNotFoundError(name="shared.nothing"), "it") is None
    assert missing_extra(ModuleNotFoundError(), "it") is None
    with pytest.raises(ModuleNotFoundError), imports_of("it", "service"):
        raise ModuleNotFoundError(name="edge_server.nothing")
