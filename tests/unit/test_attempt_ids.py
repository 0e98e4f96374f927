"""A tier answers each attempt once, so that each answer has its own entry in the ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from shared.domain import Delivery, Tier
from shared.errors import AttemptRepeated
from shared.tier_client import Exchange, TierClient
from shared.tier_server.attempt_ids import AttemptIds
from shared.wire import InferRequest
from tests.support.answers import EDGE_RULES
from tests.support.servers import run_with_server
from tests.support.tiers import create_edge, infer_body


def test_the_last_identifiers_are_remembered() -> None:
    ids = AttemptIds(remembered=3)
    for number in range(5):
        ids.accept(f"a{number}")
    ids.accept("a0")  # forgotten
    for known in ("a3", "a4", "a0"):
        with pytest.raises(AttemptRepeated, match="give each attempt a new identifier"):
            ids.accept(known)


def test_attempt_in_the_outbox_is_refused_after_a_restart(tmp_path: Path) -> None:
    """The outbox keeps the first end of an attempt, so that nothing would record a second one."""

    async def client(_: uvicorn.Server, port: int) -> int:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
            url = f"http://127.0.0.1:{port}/v1/infer"
            return (await http.post(url, json=infer_body(0))).status_code

    assert run_with_server(create_edge(tmp_path), client) == 200
    assert run_with_server(create_edge(tmp_path), client) == 409


@pytest.mark.parametrize("at_once", [True, False])
def test_many_requests_under_one_attempt_id_get_one_answer(tmp_path: Path, at_once: bool) -> None:
    async def client(_: uvicorn.Server, port: int) -> list[tuple[int, dict[str, Any]]]:
        url = f"http://127.0.0.1:{port}/v1/infer"
        async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
            bodies = [infer_body(0, text=f"fine {number}") for number in range(30)]
            if at_once:
                answers = await asyncio.gather(*(http.post(url, json=body) for body in bodies))
            else:
                answers = [await http.post(url, json=body) for body in bodies]
        return [(answer.status_code, answer.json()) for answer in answers]

    answers = run_with_server(create_edge(tmp_path), client)
    assert sorted(status for status, _ in answers) == [200] + [409] * 29
    (error,) = {str(body["error"]) for status, body in answers if status == 409}
    assert "attempt_repeated" in error
    assert "attempt_id" in error


def test_caller_that_repeats_an_attempt_does_not_expect_a_row_for_it(tmp_path: Path) -> None:
    """The exchange is a failed attempt of the tier, and `verify` expects no refusal of it."""

    async def client(_: uvicorn.Server, port: int) -> list[Exchange]:
        tier = TierClient(Tier.EDGE, f"http://127.0.0.1:{port}", EDGE_RULES)
        request = InferRequest(request_id="r", attempt_id="a", text="fine", deadline_ms=60_000)
        exchanges = [await tier.infer(request, 60.0) for _ in range(2)]
        await tier.close()
        return exchanges

    first, second = run_with_server(create_edge(tmp_path), client)
    assert first.answer is not None
    assert isinstance(second.error, AttemptRepeated)
    assert second.delivery is Delivery.UNKNOWN
