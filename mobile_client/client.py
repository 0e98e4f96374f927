"""`MobileClient`: the SDK for Python, sync and async, for one text or many."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any, NoReturn, Self

from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from mobile_client.service_thread import FLUSH_S, ServiceThread
from mobile_client.settings import MobileSettings
from shared.bundle.description import describe
from shared.errors import ClientUnusable, DimeeError, InvalidInput
from shared.policies import RoutingPolicy
from shared.settings import read_settings
from shared.telemetry.caller_trace import begin_call
from shared.telemetry.trace_context import TraceContext
from shared.wire import BundleDescription, Classification

CALL = "dimee.classify"
"""Name of the span of a call."""


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

    A client belongs to the process that created it. A process that is forked from it gets
    `ClientUnusable` and creates its own. The methods of a policy run in the event loop and must
    return at once; a call that one of them blocks ends with `DeadlineExceeded`.
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
        self._deadline_s = self._mobile.settings.deadline_ms / 1e3
        self._thread = ServiceThread(self._mobile)
        # a client that is dropped without being closed must not keep its thread and its files
        weakref.finalize(self, self._thread.begin_close, FLUSH_S).atexit = False

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
        call = self._thread.submit(self._classify_one(text, pair, options, begin_call(CALL)))
        return self._thread.wait(call, self._call_s(options))

    async def aclassify(
        self, text: str, pair: str | None = None, options: RequestOptions | None = None
    ) -> Classification:
        """Return what `classify` returns, awaited from the caller's own event loop."""
        call = self._thread.submit(self._classify_one(text, pair, options, begin_call(CALL)))
        return await self._thread.wait_async(call, self._call_s(options))

    def classify_many(
        self,
        texts: list[str],
        pairs: list[str] | None = None,
        options: RequestOptions | None = None,
    ) -> list[Classification | DimeeError]:
        """Return the answers for up to 1,000 texts in their order.

        A text whose request failed has its error in place of an answer. If a text cannot be
        classified, the call raises `InvalidInput` or `TooLarge` before any request is made; the
        error names the text as ``texts.i``.
        """
        call = self._thread.submit(self._classify(texts, pairs, options, begin_call(CALL)))
        return self._thread.wait(call, self._call_s(options))

    async def aclassify_many(
        self,
        texts: list[str],
        pairs: list[str] | None = None,
        options: RequestOptions | None = None,
    ) -> list[Classification | DimeeError]:
        """Return what `classify_many` returns, awaited from the caller's own event loop."""
        call = self._thread.submit(self._classify(texts, pairs, options, begin_call(CALL)))
        return await self._thread.wait_async(call, self._call_s(options))

    async def _classify_one(
        self,
        text: str,
        pair: str | None,
        options: RequestOptions | None,
        trace: TraceContext | None,
    ) -> Classification:
        pairs = None if pair is None else [pair]
        (outcome,) = await self._classify([text], pairs, options, trace)
        if isinstance(outcome, DimeeError):
            raise outcome
        return outcome

    async def _classify(
        self,
        texts: list[str],
        pairs: list[str] | None,
        options: RequestOptions | None,
        trace: TraceContext | None,
    ) -> list[Classification | DimeeError]:
        error: str | None = "cancelled"
        try:
            outcomes = await self._mobile.classify(
                texts, pairs, options, may_import=True, trace=trace
            )
            error = None
            return outcomes
        except DimeeError as failure:
            error = failure.code
            raise
        finally:
            if trace is not None:
                trace.end({"dimee.texts": len(texts)}, error)

    def _call_s(self, options: RequestOptions | None) -> float:
        """Return the deadline of a call's requests in seconds."""
        if not isinstance(options, RequestOptions) or options.deadline_ms is None:
            return self._deadline_s
        return options.deadline_ms / 1e3

    def close(self, flush_s: float = FLUSH_S) -> None:
        """Deliver ledger entries for up to ``flush_s`` seconds, and close.

        Calls that run end with `ClientUnusable`, as do all later calls. Undelivered entries stay on
        disk; the next mobile client delivers them. It may be called in any thread, also in a policy
        of this client, and more than once; a program that ends closes its clients. Raises nothing,
        and returns after at most twice ``flush_s`` and 5 seconds.
        """
        self._thread.close(flush_s)

    async def aclose(self, flush_s: float = FLUSH_S) -> None:
        """Do what `close` does, awaited from the caller's own event loop."""
        await self._thread.aclose(flush_s)

    def __reduce__(self) -> NoReturn:
        """Refuse to be sent to another process."""
        raise ClientUnusable(
            "a MobileClient cannot be copied or sent to another process; create one there"
        )

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
        await self.aclose()


def load_settings(settings: MobileSettings | None = None, **overrides: Any) -> MobileSettings:
    """Return ``settings``, or those of the environment, with every override that is not None."""
    if settings is not None and not isinstance(settings, MobileSettings):
        raise InvalidInput(
            f"settings: must be MobileSettings, not {type(settings).__name__}", field="settings"
        )
    given = {name: value for name, value in overrides.items() if value is not None}
    if settings is None:
        return read_settings(MobileSettings, **given)
    return read_settings(MobileSettings, **(settings.model_dump() | given))
