"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.bundle.loading import Bundle, load_bundle
from tests.support.paths import BUNDLE, REPOSITORY


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return load_bundle(BUNDLE)


@pytest.fixture(scope="session")
def glue() -> Path:
    """The folder of real data, where there is one; CI has it beside the repository."""
    folder = Path(os.environ.get("DIMEE_GLUE", REPOSITORY.parent / "shared" / "glue"))
    if not (folder / "sst2" / "validation.jsonl").is_file():
        pytest.skip(f"no GLUE data at {folder}; set DIMEE_GLUE to run this test")
    return folder


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the user's own state, and none reads the user's settings."""
    for name in list(os.environ):
        if name.startswith("DIMEE_") and name != "DIMEE_GLUE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
