"""Public API of the mobile client: the names that ``from mobile_client import ...`` exports."""

from __future__ import annotations

import inspect
import subprocess
import sys

import mobile_client
from mobile_client import MobileClient, RequestOptions
from shared import errors

HEAVY = {"torch", "transformers", "fastapi", "starlette", "uvicorn", "sqlalchemy"}
NOT_RAISED = {
    *("Unauthorised", "Forbidden", "MissingExtra", "LedgerUnavailable"),
    *("BadRequest", "HeadTooLarge", "RequestTimeout"),
}
"""Errors of other packages; `MobileClient` reports a refused token as `NotAdmitted`."""
TYPES = {
    *("MobileClient", "MobileSettings", "RequestOptions"),
    *("Classification", "AttemptReport", "CostReport", "BundleDescription"),
}


def raised_errors() -> set[str]:
    return {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.DimeeError)
    } - NOT_RAISED


def test_all_holds_the_client_its_types_and_its_errors() -> None:
    assert set(mobile_client.__all__) == TYPES | raised_errors()
    assert sorted(mobile_client.__all__) == list(mobile_client.__all__)


def test_public_names_are_those_of_all() -> None:
    public = {
        name
        for name, value in vars(mobile_client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(mobile_client.__all__)


def test_every_public_name_has_a_docstring_of_its_own() -> None:
    for name in mobile_client.__all__:
        kind = getattr(mobile_client, name)
        assert kind.__dict__.get("__doc__"), name
    for name, method in inspect.getmembers(MobileClient, inspect.isfunction):
        assert name.startswith("_") or method.__doc__, name


def test_every_call_takes_the_same_options() -> None:
    for name in ("classify", "aclassify", "classify_many", "aclassify_many"):
        options = inspect.signature(getattr(MobileClient, name)).parameters["options"]
        assert (options.annotation, options.default) == ("RequestOptions | None", None)
    assert RequestOptions() == RequestOptions(None, None, None, None)


def test_import_loads_no_server_and_no_training_code() -> None:
    code = "import mobile_client, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
