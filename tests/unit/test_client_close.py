"""Every call of a `MobileClient` ends: when it is closed, dropped or blocked by a policy."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mobile_client import (
    ClientUnusable,
    DeadlineExceeded,
    MobileClient,
    MobileSettings,
    PolicyFailed,
    RequestOptions,
    service_thread,
)
from mobile_client.local import runtime
from mobile_client.monitoring.state_file import StateFile
from shared.domain import RoutingDecision, State, Tier
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.policies import StatelessPolicy, TextFeatures
from tests.support.paths import BUNDLE, free_ports
from tests.support.silent_tier import SilentTier

END_S = 60.0
TEXT = "a wonderful film"


@pytest.fixture
def tier() -> Iterator[SilentTier]:
    with SilentTier() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, tier: SilentTier) -> MobileSettings:
    """Return settings whose cloud answers nothing for a minute, and without a ledger."""
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    return MobileSettings(
        bundle=BUNDLE,
        state_dir=tmp_path,
        ledger_url=nowhere,
        edge_url=nowhere,
        cloud_url=tier.url,
        deadline_ms=60_000,
        retries=0,
    )


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(8)
    yield pool
    pool.shutdown(wait=True, cancel_futures=True)


class Calling(StatelessPolicy):
    """Policy that runs ``work`` in its method, and chooses ``tier``."""

    name = "calling"

    def __init__(self, tier: Tier = Tier.MOBILE) -> None:
        self.work: Callable[[], object] = lambda: None
        self.tier = tier

    def route(self, features: TextFeatures) -> RoutingDecision:
        self.work()
        return RoutingDecision(self.tier, self.name)


def is_closed_error(call: Future[Any]) -> bool:
    error = call.exception(END_S)
    return isinstance(error, ClientUnusable) and "the client is closed" in error.message


def has_ended(mobile: MobileClient) -> bool:
    mobile._thread._thread.join(END_S)
    return not mobile._thread._thread.is_alive()


def recorded(folder: Path) -> list[LedgerEntry]:
    """Return the entries of the mobile's first outbox, which must be free."""
    outbox = Outbox.claim(folder / "mobile", "mobile")
    try:
        assert {file.name for file in (folder / "mobile").glob("*.lock")} == {"outbox-0.lock"}
        return [LedgerEntry.model_validate_json(row[3]) for row in outbox.pending(10_000)]
    finally:
        outbox.close()


def test_close_ends_calls_in_flight(
    settings: MobileSettings, tier: SilentTier, callers: ThreadPoolExecutor
) -> None:
    mobile = MobileClient(settings, policy="cloud")
    calls: list[Future[Any]] = [
        callers.submit(mobile.classify, TEXT),
        callers.submit(mobile.classify_many, [TEXT, TEXT]),
        callers.submit(lambda: asyncio.run(mobile.aclassify(TEXT))),
        callers.submit(lambda: asyncio.run(mobile.aclassify_many([TEXT, TEXT]))),
    ]
    tier.wait_for(6)
    mobile.close(flush_s=0)
    assert all(map(is_closed_error, calls))
    assert has_ended(mobile)
    entries = recorded(Path(settings.state_dir))
    assert [entry.state for entry in entries] == [State.ABANDONED] * 6
    assert all(entry.final for entry in entries)


def test_closed_client_refuses_every_call_at_once(settings: MobileSettings) -> None:
    mobile = MobileClient(settings, policy="mobile")
    mobile.close(flush_s=0)
    mobile.close(flush_s=0)
    for call in (lambda: mobile.classify(TEXT), lambda: mobile.classify_many([TEXT])):
        with pytest.raises(ClientUnusable, match="the client is closed"):
            call()
    for work in (mobile.aclassify(TEXT), mobile.aclassify_many([TEXT])):
        with pytest.raises(ClientUnusable, match="the client is closed"):
            asyncio.run(work)
    asyncio.run(mobile.aclose())
    assert not mobile._thread._calls


def test_many_threads_may_close_at_once(
    settings: MobileSettings, tier: SilentTier, callers: ThreadPoolExecutor
) -> None:
    mobile = MobileClient(settings, policy="cloud")
    call = callers.submit(mobile.classify, TEXT)
    tier.wait_for(1)
    start = threading.Barrier(5)

    def close() -> None:
        start.wait(END_S)
        mobile.close(flush_s=0)

    closing = [callers.submit(close) for _ in range(5)]
    assert [one.result(END_S) for one in closing] == [None] * 5
    assert is_closed_error(call)
    assert has_ended(mobile)


def test_end_of_an_async_block_ends_its_tasks(
    settings: MobileSettings, tier: SilentTier, callers: ThreadPoolExecutor
) -> None:
    async def leave_early() -> tuple[object, bool]:
        async with MobileClient(settings, policy="cloud") as mobile:
            task = asyncio.create_task(mobile.aclassify(TEXT))
            await asyncio.wrap_future(callers.submit(tier.wait_for, 1))
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        return outcome, task.cancelled()

    outcome, cancelled = asyncio.run(leave_early())
    assert isinstance(outcome, ClientUnusable)
    assert not cancelled


def test_async_close_needs_no_free_thread(settings: MobileSettings) -> None:
    released = threading.Event()

    async def close_beside_a_full_pool() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        blocked = loop.run_in_executor(None, released.wait, END_S)
        async with asyncio.timeout(END_S), MobileClient(settings, policy="mobile") as mobile:
            await mobile.aclassify(TEXT)
            await mobile.aclose(flush_s=0)
        assert not blocked.done()
        released.set()
        await blocked

    asyncio.run(close_beside_a_full_pool())


def test_cancelled_task_ends_its_request_only(
    settings: MobileSettings, tier: SilentTier, callers: ThreadPoolExecutor
) -> None:
    async def cancel_one() -> bool:
        task = asyncio.create_task(mobile.aclassify(TEXT))
        await asyncio.wrap_future(callers.submit(tier.wait_for, 1))
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    with MobileClient(settings, policy="cloud") as mobile:
        assert asyncio.run(cancel_one())
        on_device = RequestOptions(policy="mobile")
        assert mobile.classify(TEXT, options=on_device).label == "positive"
        mobile.close(flush_s=0)
    states = [entry.state for entry in recorded(Path(settings.state_dir))]
    assert sorted(states) == ["abandoned", "answered", "answered"]


def test_policy_may_close_its_client(settings: MobileSettings) -> None:
    policy = Calling(Tier.CLOUD)
    mobile = MobileClient(settings, policy=policy)
    policy.work = lambda: mobile.close(flush_s=0)
    with pytest.raises(ClientUnusable, match="the client is closed"):
        mobile.classify(TEXT)
    assert has_ended(mobile)


def test_policy_that_calls_its_client_gets_an_error(
    settings: MobileSettings, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Calling()
    with MobileClient(settings, policy=policy) as mobile:
        policy.work = lambda: mobile.classify(TEXT)
        with pytest.raises(PolicyFailed):
            mobile.classify(TEXT)
        policy.work = lambda: None
        assert mobile.classify(TEXT).label == "positive"
        mobile.close(flush_s=0)
    assert "this call would wait for itself" in caplog.text


def raise_keyboard_interrupt() -> NoReturn:
    raise KeyboardInterrupt


class Stop(BaseException):
    """Error that no handler of `Exception` catches."""


@pytest.mark.parametrize("method", ["route", "escalate"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit, Stop]
)
def test_policy_ends_only_its_own_request_whatever_it_raises(
    settings: MobileSettings, method: str, error: type[BaseException]
) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    policy = Calling()
    with MobileClient(settings, policy=policy) as mobile, pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, method, fail)
        call = asyncio.wait_for(mobile.aclassify(TEXT), END_S)
        with pytest.raises(PolicyFailed, match=f"failed in its method {method}"):
            asyncio.run(call)
        patch.undo()
        assert mobile.classify(TEXT).label == "positive"
        mobile.close(flush_s=0)


def test_call_whose_task_is_cancelled_in_the_loop_ends(
    settings: MobileSettings, callers: ThreadPoolExecutor
) -> None:
    policy = Calling()
    with MobileClient(settings, policy=policy) as mobile:
        policy.work = lambda: cancel(asyncio.current_task())
        call = callers.submit(mobile.classify, TEXT)
        assert is_cancelled_error(call)
        policy.work = lambda: None
        assert mobile.classify(TEXT).label == "positive"
        mobile.close(flush_s=0)


def cancel(task: asyncio.Task[Any] | None) -> None:
    assert task is not None
    task.cancel()


def is_cancelled_error(call: Future[Any]) -> bool:
    error = call.exception(END_S)
    return isinstance(error, ClientUnusable) and "was cancelled" in error.message


def test_policy_that_blocks_delays_no_call_without_bound(
    settings: MobileSettings, callers: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_thread, "BLOCKED_S", 0.2)
    monkeypatch.setattr(service_thread, "CLOSE_S", 0.2)
    entered, released = threading.Event(), threading.Event()
    policy, soon = Calling(), RequestOptions(deadline_ms=100)
    mobile = MobileClient(settings, policy=policy)

    def block() -> None:
        entered.set()
        released.wait(END_S)

    policy.work = block
    patient = callers.submit(mobile.classify, TEXT)
    assert entered.wait(END_S)
    with pytest.raises(DeadlineExceeded, match="event loop is blocked"):
        mobile.classify(TEXT, options=soon)
    with pytest.raises(DeadlineExceeded, match="event loop is blocked"):
        asyncio.run(mobile.aclassify_many([TEXT], options=soon))
    mobile.close(flush_s=0)
    assert is_closed_error(patient)
    released.set()
    assert has_ended(mobile)


def test_layers_that_are_busy_delay_no_answer_without_bound(
    settings: MobileSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "LOAD_S", 0.5)
    released = threading.Event()

    class Slow(Calling):
        name = "slow"

        @property
        def policy_layers(self) -> int | None:  # type: ignore[override]
            released.wait(END_S)
            return None

    with MobileClient(settings, policy="mobile") as mobile:
        with pytest.raises(DeadlineExceeded, match="policy: was not loaded within"):
            mobile.classify(TEXT, options=RequestOptions(policy=Slow()))
        with pytest.raises(DeadlineExceeded, match=r"deadline|no answer within"):
            mobile.classify(TEXT, options=RequestOptions(deadline_ms=100))
        released.set()
        assert mobile.classify(TEXT).label == "positive"
        mobile.close(flush_s=0)


def test_client_whose_thread_died_raises_at_once(
    settings: MobileSettings, tier: SilentTier, callers: ThreadPoolExecutor
) -> None:
    mobile = MobileClient(settings, policy="cloud")
    call = callers.submit(mobile.classify, TEXT)
    tier.wait_for(1)
    mobile._thread._loop.call_soon_threadsafe(raise_keyboard_interrupt)
    error = call.exception(END_S)
    assert isinstance(error, ClientUnusable)
    assert "thread ended with KeyboardInterrupt" in error.message
    with pytest.raises(ClientUnusable, match="thread ended with KeyboardInterrupt"):
        mobile.classify(TEXT)
    mobile.close(flush_s=0)
    assert has_ended(mobile)


def test_client_that_is_dropped_releases_its_files(settings: MobileSettings) -> None:
    mobile = MobileClient(settings, policy="mobile")
    mobile.classify(TEXT)
    thread = mobile._thread._thread
    del mobile
    gc.collect()
    thread.join(END_S)
    assert not thread.is_alive()
    assert len(recorded(Path(settings.state_dir))) == 2


def test_slow_ledger_does_not_delay_the_end(
    settings: MobileSettings, tier: SilentTier, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings.model_copy(update={"ledger_url": tier.url})
    mobile = MobileClient(settings, policy="mobile")
    mobile.classify(TEXT)
    tier.wait_for(1)
    began = time.monotonic()
    mobile.close(flush_s=0.2)
    assert time.monotonic() - began < 2 * 0.2 + service_thread.CLOSE_S
    assert has_ended(mobile)
    assert "closed" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_lock_of_another_process_does_not_block(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    with (
        file.locked(),
        pytest.raises(OSError, match="another process holds its lock"),
        StateFile(tmp_path / "state.json").locked(),
    ):
        pass
