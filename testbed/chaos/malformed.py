"""Malformed requests to the four real processes: ``python -m testbed.chaos.malformed``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click
import httpx
import psutil
import requests
import schemathesis

from shared.bundle.loading import load_bundle
from shared.program import run_program
from shared.settings import default_bundle
from testbed.chaos.fault_injector import ROLES, FaultInjector, resident_mb, start_fault_injector
from testbed.chaos.fuzz import FuzzResult, Headers, Post, fuzz_schema, fuzz_tensors, fuzz_texts
from testbed.chaos.output import out_option, write_figures

MAX_GROWTH_MB = 100.0
"""Allowed growth after the first round; a process that stored the texts would grow far more."""
SHARES = {"schema": 0.5, "text": 0.3, "tensor": 0.2}
ROUNDS = 10


def make_post(http: httpx.Client) -> Post:
    """Return a function that posts a body unchanged."""

    def post(path: str, body: bytes, headers: Headers) -> tuple[int, bytes]:
        answer = http.post(path, content=body, headers=headers)
        return answer.status_code, answer.content

    return post


def run_round(
    injector: FaultInjector, cases: int, seed: int, results: dict[str, FuzzResult]
) -> None:
    """Send ``cases`` to the four services and add the outcomes to ``results``."""
    each = int(cases * SHARES["schema"] / len(ROLES))
    bundle = load_bundle(default_bundle())
    with requests.Session() as session:
        session.trust_env = False
        for role in ROLES:
            schema = schemathesis.openapi.from_url(f"{injector.url(role)}/openapi.json")

            def call(case: schemathesis.Case[Any]) -> tuple[int, bytes]:
                answer = case.call(session=session, timeout=30)
                return answer.status_code, answer.content

            fuzz_schema(schema, call, each, seed, results[role])
    paths = {"mobile": "/v1/classify", "edge": "/v1/infer", "cloud": "/v1/infer"}
    for role, path in paths.items():
        with httpx.Client(base_url=injector.url(role), trust_env=False, timeout=30.0) as http:
            post = make_post(http)
            fuzz_texts(post, path, int(cases * SHARES["text"] / 3), seed, results[role])
            if role != "mobile":
                count, hidden = int(cases * SHARES["tensor"] / 2), bundle.manifest.hidden_size
                fuzz_tensors(post, bundle.bundle_id, hidden, count, seed, results[role])


def memory_mb(injector: FaultInjector) -> dict[str, float]:
    """Return the resident memory of each role in MB."""
    return {role: round(resident_mb(psutil.Process(injector.pid(role))), 1) for role in ROLES}


@click.command()
@click.option("--cases", default=20_000, show_default=True, help="Minimum number of requests.")
@click.option("--seed", default=1, show_default=True, help="Seed of the requests.")
@out_option
def main(cases: int, seed: int, out: Path | None) -> None:
    """Send malformed requests.

    Exit with 1 on a 5xx other than 503 and 504, an error without a message, a hang, a process that
    died, or memory that grows.
    """
    results = {role: FuzzResult() for role in ROLES}
    began = time.monotonic()
    memory: list[dict[str, Any]] = []
    with start_fault_injector(seed, restart_after_s=1.0, hops=()) as injector:
        pids = {role: injector.pid(role) for role in ROLES}
        # A schema with few operations gives fewer cases than planned, so that rounds are repeated.
        number = 0
        while (done := sum(result.cases for result in results.values())) < cases:
            memory.append({"cases": done} | memory_mb(injector))
            run_round(injector, max(200, cases // ROUNDS), seed * 1000 + number, results)
            number += 1
        total = sum(result.cases for result in results.values())
        memory.append({"cases": total} | memory_mb(injector))
        died = [role for role in ROLES if injector.pid(role) != pids[role]]
    after_first = memory[min(1, len(memory) - 1)]
    growth = {role: round(memory[-1][role] - after_first[role], 1) for role in ROLES}
    failures = [f"{role}: {failure}" for role in ROLES for failure in results[role].failures]
    figures = {
        "cases": total,
        "by_role": {
            role: {
                "cases": result.cases,
                "by_status": {str(status): n for status, n in sorted(result.by_status.items())},
                "slowest_s": round(result.slowest_s, 3),
            }
            for role, result in results.items()
        },
        "growth_mb": growth,
        "memory_mb": memory,
        "died": died,
        "failures": len(failures),
        "examples": failures[:20],
        "seed": seed,
        "wall_s": round(time.monotonic() - began, 1),
        "load_average": os.getloadavg(),
    }
    write_figures(figures, out)
    sys.exit(1 if failures or died or max(growth.values()) > MAX_GROWTH_MB else 0)


if __name__ == "__main__":
    run_program(main)
