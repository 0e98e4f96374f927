"""`MobileClient`: the SDK, sync and async, one text or many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.errors import DimeeError
from shared.settings import read_settings
from shared.wire import Classification

T = TypeVar("T")


class MobileClient:
    """A mobile in this process.

    ::

        with MobileClient(policy="dimee-fixed") as mobile:
            answer = mobile.classify("a gripping, funny film")
            print(answer.label, answer.tier, answer.exit_layer)

    ``settings`` come from ``DIMEE_*`` in the environment; keyword arguments override them (see
    `MobileSettings`). The client runs one event loop in a thread of its own, so that the same
    object serves sync and async callers, from any thread, and decisions are made in arrival order.
    Raises `BundleError` when the bundle cannot be used.
    """

    def __init__(self, settings: MobileSettings | None = None, **overrides: Any) -> None:
        self._mobile = MobileService(load_settings(settings, **overrides))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mobile", daemon=True)
        self._thread.start()
        self._closed = False

    def classify(
        self,
        text: str,
        pair: str | None = None,
        *,
        policy: str | None = None,
        deadline_ms: float | None = None,
        mode: str | None = None,
        max_cost_lambda: float | None = None,
    ) -> Classification:
        """Answer one text, or pair; ``deadline_ms`` bounds all attempts together.

        So does ``max_cost_lambda``, in λ; ``mode`` says where they may go
        (`mobile_client.dispatch.modes`).

        Raises `InvalidInput` or `TooLarge` for a text that cannot be classified, and the
        `TierError` of the last attempt when no tier answered.
        """
        return self._wait(self._one(text, pair, policy, deadline_ms, mode, max_cost_lambda))

    async def aclassify(
        self,
        text: str,
        pair: str | None = None,
        *,
        policy: str | None = None,
        deadline_ms: float | None = None,
        mode: str | None = None,
        max_cost_lambda: float | None = None,
    ) -> Classification:
        """As `classify`, awaited from the caller's own event loop."""
        return await self._await(self._one(text, pair, policy, deadline_ms, mode, max_cost_lambda))

    def classify_many(
        self,
        texts: list[str],
        pairs: list[str] | None = None,
        *,
        policy: str | None = None,
        deadline_ms: float | None = None,
        mode: str | None = None,
        max_cost_lambda: float | None = None,
    ) -> list[Classification | DimeeError]:
        """Answer up to 1,000 texts, in their order; an error stands where one got no answer.

        A text that cannot be classified is refused before any request is opened: `InvalidInput`
        or `TooLarge` names it as ``texts[i]``.
        """
        return self._wait(self._many(texts, pairs, policy, deadline_ms, mode, max_cost_lambda))

    async def aclassify_many(
        self,
        texts: list[str],
        pairs: list[str] | None = None,
        *,
        policy: str | None = None,
        deadline_ms: float | None = None,
        mode: str | None = None,
        max_cost_lambda: float | None = None,
    ) -> list[Classification | DimeeError]:
        """As `classify_many`, awaited from the caller's own event loop."""
        return await self._await(
            self._many(texts, pairs, policy, deadline_ms, mode, max_cost_lambda)
        )

    async def _many(
        self,
        texts: list[str],
        pairs: list[str] | None,
        policy: str | None,
        deadline_ms: float | None,
        mode: str | None,
        max_cost_lambda: float | None,
    ) -> list[Classification | DimeeError]:
        return await self._mobile.classify(
            texts, pairs, policy, deadline_ms, mode=mode, max_cost_lambda=max_cost_lambda
        )

    async def _one(
        self,
        text: str,
        pair: str | None,
        policy: str | None,
        deadline_ms: float | None,
        mode: str | None,
        max_cost_lambda: float | None,
    ) -> Classification:
        pairs = None if pair is None else [pair]
        (outcome,) = await self._many([text], pairs, policy, deadline_ms, mode, max_cost_lambda)
        if isinstance(outcome, DimeeError):
            raise outcome
        return outcome

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._submit(work).result()

    async def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(self._submit(work))

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._closed:
            work.close()
            raise RuntimeError("this MobileClient is closed; make a new one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, flush_s: float = 2.0) -> None:
        """Deliver what the ledger takes within ``flush_s``; the rest stays on disk for later."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._mobile.close(flush_s), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)


def load_settings(settings: MobileSettings | None = None, **overrides: Any) -> MobileSettings:
    """Settings from the environment, with those that are given in their place."""
    given = {name: value for name, value in overrides.items() if value is not None}
    if settings is None:
        return read_settings(MobileSettings, **given)
    return read_settings(MobileSettings, **(settings.model_dump() | given))
