"""Print the requirements of the device and of the named extras, as pyproject.toml states them.

The images install these before any code is copied, so that a code change reinstalls nothing, and
each image then gets its own rooms only.
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """The base requirements and those of the extras; an unknown extra is an error."""
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
