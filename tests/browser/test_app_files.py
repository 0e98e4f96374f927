"""The service worker's list of the app's files."""

from __future__ import annotations

from tests.support.app_files import app_files, listed_files


def test_the_service_worker_lists_the_files_as_they_are() -> None:
    assert listed_files() == app_files(), "run: python -m tests.support.app_files"
