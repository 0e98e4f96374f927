"""Programs that are run with ``python -m``."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from shared.errors import DimeeError
from shared.program import run_program

def main():
    raise DimeeError("the edge did not start")

run_program(main)
"""


def test_error_is_one_sentence() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dimee: the edge did not start\n"
