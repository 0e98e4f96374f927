"""Start the four processes of a testbed, and sentences to send to them."""

from __future__ import annotations

import random
from pathlib import Path

from testbed.processes.processes import Testbed
from testbed.processes.replicas import replica_names
from testbed.texts import sample_sentences
from testbed.up import PORTS, make_testbed
from tests.support.paths import BUNDLE, free_ports


def sentences(count: int, seed: int = 5) -> list[str]:
    """Return the sample sentences, followed by random combinations of them."""
    rng = random.Random(seed)
    samples = sample_sentences()
    joints = (", ", " and ", "; ", ", but ", " -- ")
    made = list(samples)
    while len(made) < count:
        parts = rng.sample(samples, rng.randint(1, 4))
        words = rng.choice(joints).join(parts).split()
        made.append(" ".join(words[: rng.randint(3, len(words))]))
    return made[:count]


def start(folder: Path, replicas: dict[str, int] | None = None, **settings: str) -> Testbed:
    """Start a testbed on free ports with its state in ``folder``; the caller stops it.

    ``replicas`` is the number of processes of a tier that has several.
    """
    names = [*PORTS]
    for tier, count in (replicas or {}).items():
        names += replica_names(tier, count)
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environment = {"DIMEE_BUNDLE": str(BUNDLE)} | settings
    testbed = make_testbed(ports, folder, environment, replicas=replicas)
    try:
        testbed.start_all()
    except BaseException:
        testbed.stop()
        raise
    return testbed
