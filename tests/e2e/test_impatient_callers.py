"""Callers with short deadlines take no places of the gateway's limit away from others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from testbed.processes.processes import Role, Testbed
from tests.support.paths import BUNDLE, free_ports
from tests.support.silent_tier import SilentTier

CALLERS = 12
DEADLINE_MS = 1_500.0


async def ask_at_once(url: str) -> list[int]:
    """Return the statuses of as many calls as the limit allows, all sent at once."""
    body = {"texts": ["a fine film"], "policy": "cloud", "deadline_ms": DEADLINE_MS}
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
        calls = [http.post("/v1/classify", json=body) for _ in range(CALLERS)]
        return [answer.status_code for answer in await asyncio.gather(*calls)]


def test_callers_whose_deadlines_end_while_a_tier_hangs_do_not_lower_the_limit(
    tmp_path: Path,
) -> None:
    ledger, port = free_ports(2)
    with SilentTier() as tier:
        settings = {
            "DIMEE_BUNDLE": str(BUNDLE), "DIMEE_LEDGER_URL": f"http://127.0.0.1:{ledger}",
            "DIMEE_EDGE_URL": tier.url, "DIMEE_CLOUD_URL": tier.url, "DIMEE_RETRIES": "0",
            "DIMEE_FAIL_OVER": "", "DIMEE_MAX_QUEUE": str(CALLERS),
        }  # fmt: skip
        with Testbed([Role("mobile", "mobile_client", port)], tmp_path, settings) as testbed:
            testbed.start_all()
            rounds = [asyncio.run(ask_at_once(testbed.roles["mobile"].url)) for _ in range(3)]
    assert all(status != 429 for statuses in rounds for status in statuses), rounds
