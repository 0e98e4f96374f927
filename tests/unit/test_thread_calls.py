"""Blocking calls of the page: off the event loop, bounded in number and time, never in the way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mobile_client.gateway.dashboard import ledger_reader, thread_calls
from mobile_client.gateway.dashboard.thread_calls import MAX_CALLS, ThreadCalls
from shared.errors import DeadlineExceeded, NotFound, Overloaded
from tests.support.gateway import make_gateway
from tests.support.silent_tier import SilentTier


@pytest.fixture
def blocker() -> Iterator[threading.Event]:
    """Event that ends the calls of a test which block."""
    event = threading.Event()
    yield event
    event.set()


def test_result_and_error_of_a_call_are_passed_on() -> None:
    def fail() -> None:
        raise NotFound("gone")

    async def main() -> None:
        calls = ThreadCalls("ledger")
        assert await calls.run(threading.get_ident) != threading.get_ident()
        with pytest.raises(NotFound):
            await calls.run(fail)
        assert calls.close()

    asyncio.run(main())


def test_call_that_hangs_is_given_up_and_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, blocker: threading.Event
) -> None:
    monkeypatch.setattr(thread_calls, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(thread_calls, "CLOSE_S", 0.05)

    async def main() -> None:
        calls = ThreadCalls("ledger")
        with pytest.raises(DeadlineExceeded, match="ledger has not answered"):
            await calls.run(blocker.wait)
        with pytest.raises(DeadlineExceeded):  # it waits for the first one
            await calls.run(list)
        assert not calls.close()

    asyncio.run(main())


def test_number_of_calls_is_limited(blocker: threading.Event) -> None:
    async def main() -> None:
        calls = ThreadCalls("ledger")
        running = [asyncio.create_task(calls.run(blocker.wait)) for _ in range(MAX_CALLS)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await calls.run(list)
        assert refused.value.retry_after_s
        blocker.set()
        await asyncio.gather(*running)
        assert await calls.run(list) == []
        calls.close()

    asyncio.run(main())


def test_gateway_answers_while_the_ledger_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_reader, "SILENCE_S", 1.0)
    with SilentTier() as silent:
        app = make_gateway(tmp_path, ledger_url=silent.url)

        async def main() -> None:
            transport = httpx.ASGITransport(app)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://gateway") as browser,
            ):
                listing = asyncio.create_task(browser.get("/dashboard/api/requests"))
                await asyncio.sleep(0)
                body = {"text": "a gripping, funny film"}
                answers = 0
                while not listing.done():
                    answer = await browser.post("/dashboard/api/classify", json=body)
                    assert answer.status_code == 200
                    answers += 1
                assert answers, "a blocked event loop would answer none"
                shown = (await listing).json()
                assert shown["requests"] == []
                assert "cannot be reached" in shown["problem"]

        asyncio.run(main())
