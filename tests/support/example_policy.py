"""The policy of the how-to `write-a-policy`, as a file in a folder and as an installed package."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.own_policies import install
from tests.support.paths import REPOSITORY

EXAMPLES = REPOSITORY / "docs" / "how-to" / "examples"
MODULE = "length_and_margin"
PATH = f"{MODULE}:LengthAndMargin"
NAME = "length-and-margin"


def installed_path(folder: Path) -> str:
    """Return a PYTHONPATH on which a package has registered the policy by its name."""
    site = install(folder / "site", "example-policies", {NAME: PATH})
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([site, str(EXAMPLES), *([before] if before else [])])
