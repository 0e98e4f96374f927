"""The four real processes on free ports, and sentences written for the project."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testbed.demo import sample_sentences
from testbed.processes.processes import Testbed
from testbed.up import PORTS, make_testbed
from tests.support.paths import BUNDLE, free_ports


def sentences(count: int, seed: int = 5) -> list[str]:
    """Sentences of many lengths: the samples, alone and joined at random."""
    rng = random.Random(seed)
    samples = sample_sentences()
    joints = (", ", " and ", "; ", ", but ", " -- ")
    made = list(samples)
    while len(made) < count:
        parts = rng.sample(samples, rng.randint(1, 4))
        words = rng.choice(joints).join(parts).split()
        made.append(" ".join(words[: rng.randint(3, len(words))]))
    return made[:count]


def start(folder: Path, **settings: str) -> Testbed:
    """Start a testbed of its own on free ports; the caller stops it."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    testbed = make_testbed(ports, folder, {"DIMEE_BUNDLE": str(BUNDLE)} | settings)
    try:
        testbed.start_all()
    except BaseException:
        testbed.stop()
        raise
    return testbed


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    # no machine is too slow for a replay, and decisions depend on the texts alone
    running = start(
        tmp_path_factory.mktemp("testbed"),
        DIMEE_MAX_QUEUE_MS="600000",
        DIMEE_LATENCY_PRICE_LAMBDA="0",
    )
    with running:
        yield running


@pytest.fixture
def gateway(testbed: Testbed) -> Iterator[httpx.Client]:
    url = testbed.roles["mobile"].url
    with httpx.Client(base_url=url, trust_env=False, timeout=60.0) as http:
        yield http
