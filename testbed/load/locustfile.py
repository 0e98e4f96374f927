"""The requests of `dimee load`, as a file for Locust.

``locust -f testbed/load/locustfile.py --host http://127.0.0.1:8701 --headless -u 20 -r 20 -t 60s``

Each user sends DIMEE_LOAD_RATE requests a second (default 1) at random times that do not depend on
the answers. As in `dimee load`, response times count from the intended time. A user has one request
under way at a time; those that become due in the meantime follow at once, and their wait counts.
A name in Locust's table is ``PATH [ending]``. More settings: DIMEE_LOAD_PATH (policy, mobile, edge,
cloud), DIMEE_LOAD_TEXTS (a file of texts; by default the samples of the gateway's bundle),
DIMEE_LOAD_SEED, DIMEE_LOAD_DEADLINE_MS, DIMEE_LOAD_ALLOW_REMOTE=1.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from functools import cache
from pathlib import Path
from typing import Any

from locust import HttpUser, task

from shared.credentials import Credentials
from shared.domain import InputText
from testbed.gateway import fetch_bundle, gateway_client
from testbed.load.sample import PATH, Sample, request_body
from testbed.load.target import check_url
from testbed.load.texts import texts_to_send

_numbers = itertools.count()


@cache
def _texts(host: str, seed: int) -> list[InputText]:
    """Return the texts that all users send."""
    file = os.environ.get("DIMEE_LOAD_TEXTS")
    with gateway_client(host, Credentials.from_environment(), 10.0) as http:
        bundle = fetch_bundle(http)
    return texts_to_send(bundle, Path(file) if file else None, {}, seed)


class Caller(HttpUser):  # type: ignore[misc]  # mypy also runs without Locust
    """A caller of the mobile's gateway."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        check_url(str(self.host), os.environ.get("DIMEE_LOAD_ALLOW_REMOTE") == "1")
        self.client.trust_env = False
        seed = int(os.environ.get("DIMEE_LOAD_SEED", "1"))
        self.rng = random.Random(f"{seed} {next(_numbers)}")
        credentials = Credentials.from_environment()
        self.client.headers.update(credentials.headers())
        self.texts = _texts(str(self.host).rstrip("/"), seed)
        self.rate = float(os.environ.get("DIMEE_LOAD_RATE", "1"))
        self.deadline_ms = float(os.environ.get("DIMEE_LOAD_DEADLINE_MS", "5000"))
        path = os.environ.get("DIMEE_LOAD_PATH", "policy")
        self.policy = None if path == "policy" else path
        self.due = time.perf_counter() + self.rng.expovariate(self.rate)

    def wait_time(self) -> float:
        """Return the seconds until the next request is due, 0 if it is overdue."""
        return max(0.0, self.due - time.perf_counter())

    def on_start(self) -> None:
        """Wait until the first request is due."""
        self.wait()

    @task  # type: ignore[untyped-decorator]
    def classify(self) -> None:
        """Send one text and report its response time from the time at which it was due."""
        due, self.due = self.due, self.due + self.rng.expovariate(self.rate)
        sample = Sample(0, 0.0, late_ms=(time.perf_counter() - due) * 1e3)
        body = request_body(self.rng.choice(self.texts), self.policy, self.deadline_ms)
        timeout_s = self.deadline_ms / 1e3 + 2
        with self.client.post(PATH, json=body, timeout=timeout_s, catch_response=True) as answer:
            sample.latency_ms = (time.perf_counter() - due) * 1e3
            if answer.status_code:
                sample.read_response(answer.status_code, answer.content or b"")
            answer.request_meta["response_time"] = sample.latency_ms
            answer.request_meta["name"] = f"{PATH} [{sample.tier or sample.ending}]"
            if sample.ending == "answered":
                answer.success()
            else:
                answer.failure(sample.error_code or sample.ending)
