"""``python -m testbed.chaos.malformed``: nonsense for the four real processes; does memory grow?"""

from __future__ import annotations

import json
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
from shared.settings import default_bundle
from testbed.chaos.fault_injector import ROLES, Victim, resident_mb, victim
from testbed.chaos.fuzz import Found, Headers, Post, by_schema, by_tensor, by_text

MOST_GROWTH_MB = 100.0
"""After the first tenth of the cases. A process that kept the texts would be far above it."""
SHARES = {"schema": 0.5, "text": 0.3, "tensor": 0.2}


def posting(http: httpx.Client) -> Post:
    """Send as it is; a request that the client itself cannot write counts as refused."""

    def post(path: str, body: bytes, headers: Headers) -> tuple[int, bytes]:
        answer = http.post(path, content=body, headers=headers)
        return answer.status_code, answer.content

    return post


def one_round(bed: Victim, cases: int, seed: int, found: dict[str, Found]) -> None:
    """``cases`` over the four services."""
    each = int(cases * SHARES["schema"] / len(ROLES))
    bundle = load_bundle(default_bundle())
    with requests.Session() as session:
        session.trust_env = False
        for role in ROLES:
            schema = schemathesis.openapi.from_url(f"{bed.url(role)}/openapi.json")

            def call(case: schemathesis.Case[Any]) -> tuple[int, bytes]:
                answer = case.call(session=session, timeout=30)
                return answer.status_code, answer.content

            by_schema(schema, call, each, seed, found[role])
    paths = {"mobile": "/v1/classify", "edge": "/v1/infer", "cloud": "/v1/infer"}
    for role, path in paths.items():
        with httpx.Client(base_url=bed.url(role), trust_env=False, timeout=30.0) as http:
            by_text(posting(http), path, int(cases * SHARES["text"] / 3), seed, found[role])
            if role != "mobile":
                count, hidden = int(cases * SHARES["tensor"] / 2), bundle.manifest.hidden_size
                by_tensor(posting(http), bundle.bundle_id, hidden, count, seed, found[role])


def memory_mb(bed: Victim) -> dict[str, float]:
    """Resident memory of each role."""
    return {role: round(resident_mb(psutil.Process(bed.pid(role))), 1) for role in ROLES}


@click.command()
@click.option("--cases", default=20_000, show_default=True, help="At least so many.")
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures there (JSON).")
def main(cases: int, seed: int, out: Path | None) -> None:
    """Exit 1 on a 5xx that is not due, an error without a sentence, a hang, or growing memory."""
    found = {role: Found() for role in ROLES}
    began = time.monotonic()
    memory: list[dict[str, Any]] = []
    with victim(seed, restart_after_s=1.0, hops=()) as bed:
        before = {role: bed.pid(role) for role in ROLES}
        # in rounds, until there are enough: a schema with few operations runs out of cases
        turn = 0
        while (done := sum(one.cases for one in found.values())) < cases:
            memory.append({"cases": done} | memory_mb(bed))
            one_round(bed, max(200, cases // 10), seed * 1000 + turn, found)
            turn += 1
        memory.append({"cases": sum(one.cases for one in found.values())} | memory_mb(bed))
        died = [role for role in ROLES if bed.pid(role) != before[role]]
    warm = memory[min(1, len(memory) - 1)]
    grown = {role: round(memory[-1][role] - warm[role], 1) for role in ROLES}
    wrong = [f"{role}: {one}" for role in ROLES for one in found[role].wrong]
    report = {
        "cases": sum(one.cases for one in found.values()),
        "by_role": {
            role: {
                "cases": one.cases,
                "by_status": {str(status): n for status, n in sorted(one.by_status.items())},
                "slowest_s": round(one.slowest_s, 3),
            }
            for role, one in found.items()
        },
        "growth_mb": grown,
        "memory_mb": memory,
        "died": died,
        "wrong": len(wrong),
        "examples": wrong[:20],
        "seed": seed,
        "wall_s": round(time.monotonic() - began, 1),
        "load_average": os.getloadavg(),
    }
    text = json.dumps(report, indent=1)
    click.echo(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    sys.exit(1 if wrong or died or max(grown.values()) > MOST_GROWTH_MB else 0)


if __name__ == "__main__":
    main()
