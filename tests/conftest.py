"""Fixtures for all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.bundle.loading import Bundle, load_bundle
from tests.support.paths import BUNDLE, REPOSITORY


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The shipped bundle."""
    return load_bundle(BUNDLE)


@pytest.fixture(scope="session")
def glue() -> Path:
    """The folder of the GLUE data, by default ../shared/glue; skips the test without it."""
    folder = Path(os.environ.get("DIMEE_GLUE", REPOSITORY.parent / "shared" / "glue"))
    if not (folder / "sst2" / "validation.jsonl").is_file():
        pytest.skip(f"no GLUE data at {folder}; set DIMEE_GLUE to run this test")
    return folder


@pytest.fixture(autouse=True)
def _isolated_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests from writing the user's state and from reading the user's settings."""
    for name in list(os.environ):
        if name.startswith(("DIMEE_", "OTEL_")) and name != "DIMEE_GLUE":
            monkeypatch.delenv(name)
    for name in ("COLUMNS", "LINES"):  # the width of tables
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module", autouse=True)
def _threads_of_torch() -> Iterator[None]:
    """Restore torch's threads, which the cuda runtime sets for the whole process.

    A training with another number of threads adds in another order, and ends with other weights.
    """
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    if torch:
        torch.set_num_threads(threads)
