"""Installation of the mobile in a new virtual environment."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.paths import BUNDLE

FORBIDDEN = {"torch", "transformers", "fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic"}
ASK = """
import json, sys
from mobile_client import MobileClient
with MobileClient(policy="mobile", bundle=sys.argv[1], state_dir=sys.argv[2]) as mobile:
    answer = mobile.classify("a wonderful film")
    mobile.close(flush_s=0)
print(json.dumps([answer.label, answer.tier, sorted({name.split(".")[0] for name in sys.modules})]))
"""


@pytest.mark.long
@pytest.mark.timeout(400)
def test_mobile_installs_and_answers_without_server_and_training_packages(
    repository: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    tracked = subprocess.run(
        [
            "git",
            "ls-files",
            "-z",
            "shared",
            "mobile_client",
            "edge_server",
            "cloud_server",
            "lab",
            "testbed",
            "pyproject.toml",
            "README.md",
        ],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, tracked):
        if (repository / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((repository / name).read_bytes())
    venv.create(tmp_path / "mobile", with_pip=True)
    python = tmp_path / "mobile" / "bin" / "python"
    constraints = repository / "deploy" / "constraints.txt"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", constraints, source], check=True
    )
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True
    )
    installed = {row["name"].lower() for row in json.loads(listed.stdout)}
    assert not installed & FORBIDDEN
    assert {"dimee", "onnxruntime", "tokenizers", "httpx"} <= installed
    asked = subprocess.run(
        [python, "-c", ASK, BUNDLE, tmp_path / "state"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    label, tier, modules = json.loads(asked.stdout)
    assert (label, tier) == ("positive", "mobile")
    assert not set(modules) & FORBIDDEN
    command = tmp_path / "mobile" / "bin" / "dimee"
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "classify" in shown.stdout
    trained = subprocess.run(
        [command, "train", "--data", ".", "--out", "x"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert trained.returncode == 2
    assert "pip install -e '.[lab]'" in trained.stderr
    assert sys.prefix not in asked.stdout
