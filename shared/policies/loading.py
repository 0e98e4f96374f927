"""Finds policies that are not built in: ``module:Class``, and those of installed packages.

A package registers its policies as entry points of the group `GROUP`; the name of the entry point
is the policy's name::

    [project.entry-points."dimee.policies"]
    length-and-margin = "my_package.policies:LengthAndMargin"
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from shared.errors import InvalidInput

GROUP = "dimee.policies"
PARAMETERS = ("facts", "seed")
"""Parameters of a policy's class or function that get a value when the policy is built."""

Factory = Callable[..., Any]


def is_path(name: str) -> bool:
    """Return True for ``module:Class``, which is imported, and False for the name of a policy."""
    return ":" in name


def installed_names() -> list[str]:
    """Return the names that installed packages register, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def find_installed(name: str) -> Factory | None:
    """Return the class or function that an installed package registers; None if none does.

    Raises `InvalidInput` if two packages register the name, or if it cannot be imported.
    """
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        return None
    if len({point.value for point in points}) > 1:
        packages = " and ".join(sorted(_package(point) for point in points))
        raise _invalid(f"{name!r} is registered by {packages}; remove one of them")
    try:
        found: object = points[0].load()
    except (Exception, SystemExit) as error:
        raise _invalid(
            f"{name!r} of {_package(points[0])} cannot be imported ({described(error)})"
        ) from error
    return _callable(found, points[0].value)


def import_path(path: str) -> Factory:
    """Import the class or function ``module:Class``.

    The module is searched in Python's path and then in the working directory. Raises
    `InvalidInput`, whose message says what is wrong.
    """
    module_name, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *name.split("."))):
        raise _invalid(f"{path[:80]!r} is not MODULE:CLASS, such as my_policies:ByLength")
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if module_name.endswith(".py"):
            raise _invalid(f"write {path.replace('.py:', ':', 1)!r}, without .py") from error
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _invalid(f"{path!r} needs {error.name}, which is not installed") from error
        raise _invalid(
            f"there is no module {error.name!r} in {folder} or in Python's path; run the command "
            "in the module's folder, or set PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:
        raise _invalid(f"{module_name!r} cannot be imported ({described(error)})") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise _invalid(f"the module {module_name!r} has no class {name!r}")
        found = getattr(found, part)
    return _callable(found, path)


def build(factory: Factory, facts: object, seed: int, where: str) -> object:
    """Call the class or function, with ``facts`` and ``seed`` if it has parameters of these names.

    Raises `InvalidInput` with the message of an error in it; ``where`` names it in messages.
    """
    accepted = parameters(factory)
    values = dict(zip(PARAMETERS, (facts, seed), strict=True))
    try:
        return factory(**{name: value for name, value in values.items() if name in accepted})
    except (Exception, SystemExit) as error:
        raise _invalid(f"{where} cannot be built ({described(error)})") from error


def parameters(factory: Factory) -> list[str]:
    """Return the names of the parameters; none for an object whose signature is unknown."""
    try:
        return list(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return []


def described(error: BaseException) -> str:
    """Return the class, the message and the last code location of an error, as one line."""
    message = _printable(str, error)[:200]
    frames = traceback.extract_tb(error.__traceback__)
    location = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{': ' if message else ''}{message}{location}"


def shown(value: object) -> str:
    """Return at most 80 characters of the value's representation, as one line."""
    return _printable(repr, value)[:80]


def _printable(convert: Callable[[object], str], value: object) -> str:
    """Return ``str`` or ``repr`` of a value, whose own code may raise an error, as one line."""
    try:
        return " ".join(convert(value).split())
    except (Exception, SystemExit):
        return f"<{type(value).__name__}>"


def _callable(found: object, where: str) -> Factory:
    if not callable(found):
        raise _invalid(f"{where!r} is neither a class nor a function that returns a policy")
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _invalid(problem: str) -> InvalidInput:
    return InvalidInput(f"policy: {problem}", field="policy")
