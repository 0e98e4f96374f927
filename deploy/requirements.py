"""Print the requirements of the base installation and of extras, from pyproject.toml.

The images install these before the code is copied, so that a code change does not reinstall them.
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Return the requirements of the base and the extras; exit for an unknown extra."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    unknown = [extra for extra in extras if extra not in optional]
    if unknown:
        raise SystemExit(
            f"pyproject.toml has no extra named {unknown[0]!r}; it has {list(optional)}."
        )
    lines = list(project["dependencies"])
    for extra in extras:
        lines.extend(optional[extra])
    return sorted(set(lines))


if __name__ == "__main__":
    print("\n".join(requirements(Path(sys.argv[1]), sys.argv[2:])))
