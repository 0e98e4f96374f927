"""The files of this repository that git tracks or would track."""

from __future__ import annotations

import subprocess

from tests.support.paths import REPOSITORY


def tracked(*patterns: str) -> list[str]:
    """Return the paths of the files that match one of the patterns, relative to the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = sorted(name for name in set(listed.stdout.split()) if (REPOSITORY / name).is_file())
    assert found, f"git listed no file like {patterns}"
    return found
