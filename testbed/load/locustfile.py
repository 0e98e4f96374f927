"""The load of `dimee load` for those who live in Locust, over the same requests and readings.

``locust -f testbed/load/locustfile.py --host http://127.0.0.1:8701 --headless -u 20 -r 20 -t 60s``

Each user asks DIMEE_LOAD_RATE times a second (1) at random times decided before, and does not wait
longer because an answer was late: response times count from the intended time, as in `dimee load`.
A user has one request under way; those that fell due meanwhile follow at once, with their wait. A
name in Locust's table is ``PATH [how it ended]``; other settings: DIMEE_LOAD_PATH (policy, mobile,
edge, cloud), DIMEE_LOAD_SEED, DIMEE_LOAD_DEADLINE_MS, DIMEE_LOAD_ALLOW_REMOTE=1.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from typing import Any

from locust import HttpUser, task

from testbed.load.exchange import PATH, Sample, body, read
from testbed.load.target import check_url
from testbed.load.texts import make_texts

_numbers = itertools.count()


class Caller(HttpUser):  # type: ignore[misc]  # checked without Locust too
    """One caller of the mobile's gateway."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        check_url(str(self.host), os.environ.get("DIMEE_LOAD_ALLOW_REMOTE") == "1")
        self.client.trust_env = False
        seed = int(os.environ.get("DIMEE_LOAD_SEED", "1"))
        self.dice = random.Random(f"{seed} {next(_numbers)}")
        self.texts = make_texts(300, seed)
        self.rate = float(os.environ.get("DIMEE_LOAD_RATE", "1"))
        self.deadline_ms = float(os.environ.get("DIMEE_LOAD_DEADLINE_MS", "5000"))
        path = os.environ.get("DIMEE_LOAD_PATH", "policy")
        self.policy = None if path == "policy" else path
        self.due = time.perf_counter() + self.dice.expovariate(self.rate)

    def wait_time(self) -> float:
        """Seconds until the next request is due; none if it is overdue."""
        return max(0.0, self.due - time.perf_counter())

    def on_start(self) -> None:
        """The first one is not due at once either."""
        self.wait()

    @task  # type: ignore[untyped-decorator]
    def classify(self) -> None:
        """One text; its time counts from when it was due."""
        due, self.due = self.due, self.due + self.dice.expovariate(self.rate)
        sample = Sample(0, 0.0, late_ms=(time.perf_counter() - due) * 1e3)
        asked = body(self.dice.choice(self.texts), self.policy, self.deadline_ms)
        timeout_s = self.deadline_ms / 1e3 + 2
        with self.client.post(PATH, json=asked, timeout=timeout_s, catch_response=True) as answer:
            sample.latency_ms = (time.perf_counter() - due) * 1e3
            if answer.status_code:
                read(sample, answer.status_code, answer.content or b"")
            answer.request_meta["response_time"] = sample.latency_ms
            answer.request_meta["name"] = f"{PATH} [{sample.tier or sample.ending}]"
            if sample.ending == "answered":
                answer.success()
            else:
                answer.failure(sample.error_code or sample.ending)
