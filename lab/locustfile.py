"""For Locust: ``locust -f lab/locustfile.py --host http://127.0.0.1:8701``.

Users take turns with `dimee load`'s texts and read answers as it does. Locust's users wait for
their answers: what it reports is a closed loop, and a server that stalls is asked less often. Use
``dimee load`` where latencies matter.
"""

from __future__ import annotations

import random

from locust import FastHttpUser, constant_throughput, task

from lab.load.ask import PATH, Sample, body, read
from lab.load.texts import make_texts
from shared.credentials import Credentials

TEXTS = make_texts(300, seed=1)
DEADLINE_MS = 5_000.0


class Phone(FastHttpUser):
    """Asks the gateway, twice a second at most."""

    wait_time = constant_throughput(2)

    def on_start(self) -> None:
        """Each user has dice and credentials of its own."""
        self.dice = random.Random(id(self))
        self.shown = Credentials.from_environment()
        self.asked = 0

    @task
    def classify(self) -> None:
        """One text; anything but an answer is a failure, with its error's code."""
        asked = body(self.dice.choice(TEXTS), None, DEADLINE_MS)
        self.asked += 1
        with self.rest("POST", PATH, json=asked, headers=self.shown.headers()) as response:
            sample = Sample(self.asked, 0.0)
            read(sample, response.status_code or 0, response.content or b"")
            if sample.ending != "answered":
                response.failure(f"{sample.ending}: {sample.error_code}")
