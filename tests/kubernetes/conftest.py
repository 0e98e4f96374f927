"""Fixtures: the manifests of deploy/kubernetes with secrets made for the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kubernetes import OVERLAYS, Manifest, copied, rendered


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/kubernetes with secrets."""
    return copied(tmp_path_factory.mktemp("kubernetes"))


@pytest.fixture(scope="session")
def all_manifests(deployment: Path) -> dict[str, list[Manifest]]:
    """The rendered manifests of the base and the overlays."""
    return {overlay: rendered(deployment / overlay) for overlay in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def manifests(
    request: pytest.FixtureRequest, all_manifests: dict[str, list[Manifest]]
) -> list[Manifest]:
    """The rendered manifests of the base, and of each overlay."""
    return all_manifests[request.param]
