"""An installed dimee has the files that are no Python, such as the page and Swagger UI."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.paths import REPOSITORY
from tests.support.tracked import tracked

PACKAGES = ("shared", "mobile_client", "edge_server", "cloud_server", "lab", "testbed")
BUILD = "from setuptools import build_meta; build_meta.build_wheel({!r})"


def test_wheel_has_every_file_of_the_packages(tmp_path: Path) -> None:
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    names = [name for name in tracked(*PACKAGES) if not name.endswith(".md")]
    for name in (*names, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((REPOSITORY / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(str(wheels))],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert [name for name in names if name not in packed] == []
