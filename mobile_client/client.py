"""`MobileClient`: the SDK for Python, sync and async, for one text or many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.bundle.description import describe
from shared.errors import DimeeError
from shared.policies import RoutingPolicy
from shared.settings import read_settings
from shared.wire import BundleDescription, Classification

T = TypeVar("T")


class MobileClient:
    """Mobile client that runs in this process.

    ::

        with MobileClient(policy="dimee-fixed") as mobile:
            answer = mobile.classify("a gripping, funny film")
            print(answer.label, answer.tier, answer.exit_layer)

    Settings come from ``DIMEE_*`` in the environment or from ``settings``; keyword arguments
    override them (see `MobileSettings`). `RequestOptions` override them for one call. ``policy`` is
    a name, ``module:Class``, or an object with the members of `shared.policies.RoutingPolicy`.

    The client runs an event loop in its own thread, so that sync and async callers can use it from
    any thread. It routes texts in the order of arrival. Raises `BundleError` if the bundle cannot
    be used, and `InvalidInput` if the policy cannot.
    """

    def __init__(
        self,
        settings: MobileSettings | None = None,
        *,
        policy: str | RoutingPolicy | None = None,
        **overrides: Any,
    ) -> None:
        if policy is None or isinstance(policy, str):
            self._mobile = MobileService(load_settings(settings, policy=policy, **overrides))
        else:
            self._mobile = MobileService(load_settings(settings, **overrides), policy=policy)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mobile", daemon=True)
        self._thread.start()
        self._closed = False

    @property
    def bundle(self) -> BundleDescription:
        """The task and the labels of the bundle, and its sample texts."""
        return describe(self._mobile.runtime.bundle)

    def classify(
        self, text: str, pair: str | None = None, options: RequestOptions | None = None
    ) -> Classification:
        """Return the answer for one text, or for one pair of texts.

        Raises `InvalidInput` or `TooLarge` for a text that cannot be classified, and the
        `TierError` of the last attempt if no tier answered.

        ::

            mobile.classify("a fine film", options=RequestOptions(policy="cloud", deadline_ms=800))
        """
        return self._submit(self._classify_one(text, pair, options)).result()

    async def aclassify(
        self, text: str, pair: str | None = None, options: RequestOptions | None = None
    ) -> Classification:
        """Return what `classify` returns, awaited from the caller's own event loop."""
        return await asyncio.wrap_future(self._submit(self._classify_one(text, pair, options)))

    def classify_many(
        self,
        texts: list[str],
        pairs: list[str] | None = None,
        options: RequestOptions | None = None,
    ) -> list[Classification | DimeeError]:
        """Return the answers for up to 1,000 texts in their order.

        A text whose request failed has its error in place of an answer. If a text cannot be
        classified, the call raises `InvalidInput` or `TooLarge` before any request is made; the
        error names the text as ``texts[i]``.
        """
        return self._submit(self._classify(texts, pairs, options)).result()

    async def aclassify_many(
        self,
        texts: list[str],
        pairs: list[str] | None = None,
        options: RequestOptions | None = None,
    ) -> list[Classification | DimeeError]:
        """Return what `classify_many` returns, awaited from the caller's own event loop."""
        return await asyncio.wrap_future(self._submit(self._classify(texts, pairs, options)))

    async def _classify_one(
        self, text: str, pair: str | None, options: RequestOptions | None
    ) -> Classification:
        pairs = None if pair is None else [pair]
        (outcome,) = await self._classify([text], pairs, options)
        if isinstance(outcome, DimeeError):
            raise outcome
        return outcome

    async def _classify(
        self, texts: list[str], pairs: list[str] | None, options: RequestOptions | None
    ) -> list[Classification | DimeeError]:
        return await self._mobile.classify(texts, pairs, options, may_import=True)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._closed:
            work.close()
            raise RuntimeError("this MobileClient is closed; create a new one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, flush_s: float = 2.0) -> None:
        """Deliver ledger entries for up to ``flush_s`` seconds, and close.

        Undelivered entries stay on disk; the next mobile client delivers them.
        """
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
    """Return ``settings``, or those of the environment, with every override that is not None."""
    given = {name: value for name, value in overrides.items() if value is not None}
    if settings is None:
        return read_settings(MobileSettings, **given)
    return read_settings(MobileSettings, **(settings.model_dump() | given))
