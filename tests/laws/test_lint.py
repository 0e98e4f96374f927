"""The laws that a tool holds: style, types, and who may import whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports",),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_law(command: tuple[str, ...], repository: Path) -> None:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_stay_short(repository: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=repository, capture_output=True, text=True, check=True
    )
    lengths = {
        name: len((repository / name).read_text(encoding="utf-8").splitlines())
        for name in tracked.stdout.split()
        if (repository / name).is_file()
    }
    assert lengths, "git listed no Python file"
    assert not {name: lines for name, lines in lengths.items() if lines >= 400}
