"""Import laws that import-linter has no contract for."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import REPOSITORY
from tests.support.tracked import tracked

OWN = ("shared", "mobile_client", "edge_server", "cloud_server", "lab", "testbed", "tests")
UNDOCUMENTED = ("uvicorn.protocols",)
"""Public names that the documentation of their library does not describe."""
FOLDERS = {
    "torch": ("lab", "shared/inference/cuda"),
    "transformers": ("lab",),
    "datasets": ("lab",),
    "sklearn": ("lab",),
    "sqlalchemy": ("shared/ledger/server",),
    "alembic": ("shared/ledger/server",),
    "psycopg": ("shared/ledger/server",),
    "opentelemetry": ("shared/telemetry",),
    "grpc": ("mobile_client/gateway/protocols",),
    "ray": ("shared/ray_serve",),
}
"""Library → the only folders that may import it, beside the tests."""
STAND_ALONE = "testbed/bench/servers/"
"""Programs of the benchmark that run in virtual environments of their own."""


GENERATED = "mobile_client/gateway/protocols/generated/"
"""Code that a library generated for itself."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Yield the path and the syntax tree of every Python file."""
    for name in tracked("*.py"):
        yield name, ast.parse((REPOSITORY / name).read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of every module and every name that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(dotted: str) -> bool:
    """Return True if a part of the name has one leading underscore."""
    return any(part.startswith("_") and not part.startswith("__") for part in dotted.split("."))


def private_names(tree: ast.AST) -> list[str]:
    """Return the private names of third-party packages that the file imports or reads."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name.split(".")[0]] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    found = list(imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            base = node.value
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id in modules:
                found.append(f"{modules[base.id]}.{node.attr}")
    outside = (name for name in found if name.split(".")[0] not in (*OWN, *sys.stdlib_module_names))
    return sorted({name for name in outside if is_private(name) or name.startswith(UNDOCUMENTED)})


def test_no_private_api_of_a_library_is_used() -> None:
    private = {
        name: found
        for name, tree in trees()
        if not name.startswith(GENERATED) and (found := private_names(tree))
    }
    assert not private


def test_private_names_are_found() -> None:
    code = """
import uvicorn
from starlette._utils import is_async_callable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
uvicorn.config._secret
"""
    assert private_names(ast.parse(code)) == [
        "starlette._utils",
        "starlette._utils.is_async_callable",
        "uvicorn._secret",
        "uvicorn.protocols.http.httptools_impl",
        "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol",
    ]


def test_libraries_are_imported_in_their_folders_only() -> None:
    wrong = [
        f"{name} imports {module}"
        for name, tree in trees()
        for module in imported(tree)
        if (folders := FOLDERS.get(module.split(".")[0]))
        and not name.startswith((*(f"{folder}/" for folder in folders), "tests/", STAND_ALONE))
    ]
    assert not wrong


def test_no_test_imports_a_test_or_a_conftest() -> None:
    wrong = [
        f"{name} imports {module}"
        for name, tree in trees()
        if name.startswith("tests/")
        for module in imported(tree)
        if is_test(module)
    ]
    assert not wrong, "move what they share to tests/support"


def is_test(module: str) -> bool:
    """Return True if a part of the dotted name is a test module or a conftest."""
    first, *parts = module.split(".")
    path = Path(REPOSITORY, first, *parts)
    return first == "tests" and any(
        part == "conftest" or (part.startswith("test_") and path.with_suffix(".py").is_file())
        for part in parts
    )
