"""Fixtures: the four processes of a testbed on free ports, and an HTTP client of its gateway."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from testbed.processes.processes import Testbed
from tests.support.running_testbed import start


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """The testbed of a test module."""
    # A queue that never refuses and a free wait: decisions depend on the texts alone.
    running = start(
        tmp_path_factory.mktemp("testbed"),
        DIMEE_MAX_QUEUE_MS="600000",
        DIMEE_LATENCY_PRICE_LAMBDA="0",
    )
    with running:
        yield running


@pytest.fixture
def gateway(testbed: Testbed) -> Iterator[httpx.Client]:
    """An HTTP client of the testbed's gateway."""
    url = testbed.roles["mobile"].url
    with httpx.Client(base_url=url, trust_env=False, timeout=60.0) as http:
        yield http
