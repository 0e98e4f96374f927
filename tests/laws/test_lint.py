"""Laws that tools check: style, types, imports, length of files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tracked import tracked

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
def test_tool_reports_no_error(command: tuple[str, ...], repository: Path) -> None:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_has_fewer_than_400_lines(repository: Path) -> None:
    lengths = {
        name: len((repository / name).read_text(encoding="utf-8").splitlines())
        for name in tracked("*.py")
    }
    assert not {name: lines for name, lines in lengths.items() if lines >= 400}
