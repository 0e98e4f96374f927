"""The work of one tier: classify attempts and record each one in the ledger's outbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from starlette.types import Receive

from shared.bundle.loading import Bundle
from shared.bundle.manifest import TOKENIZER
from shared.certificates.certificate import load_certificate
from shared.credentials import Credentials
from shared.domain import LayerRange, Side, State, Tier
from shared.errors import BundleMismatch, DeadlineExceeded, DimeeError, NotReady
from shared.inference.batch_selection import best_batch, bucketed_batch
from shared.inference.buckets import width_buckets
from shared.inference.codec import ResumeLimits
from shared.inference.devices import ComputeDevice, choose_devices
from shared.inference.process_batcher import start_processes
from shared.inference.tokenizer import TextEncoder
from shared.ledger.entry import LedgerEntry
from shared.ledger.group_commit import GroupCommitWriter
from shared.ledger.open_outbox import open_outbox
from shared.ledger.recording_state import OutboxReport
from shared.ledger.shipper import Shipper
from shared.ledger.undelivered import UndeliveredReport
from shared.serving.disconnect import cancel_on_disconnect
from shared.settings import TierSettings
from shared.telemetry.layer_spans import add_layers
from shared.telemetry.trace_context import TraceContext
from shared.text import check_inputs
from shared.tier_server.attempt_ids import REMEMBERED, AttemptIds
from shared.tier_server.engine import DOWN, AdmissionTicket, Computed, Engine
from shared.wire import AttemptRequest, InferRequest, InferResponse, ResumeRequest

log = logging.getLogger(__name__)
REFUSAL_DELAY_S = 0.002
"""Time that a refusal waits, so that several are written to the outbox in one transaction."""


class TierService:
    """One tier: its layers, its engine and its side of the ledger.

    Every attempt that reaches `infer` or `resume` gets a terminal entry in the outbox, even if it
    fails or its client disconnects.
    """

    def __init__(
        self,
        tier: Tier,
        bundle: Bundle,
        layers: LayerRange,
        alpha: float | None,
        settings: TierSettings,
        devices: Sequence[ComputeDevice] | None = None,
    ) -> None:
        if devices is None:
            given = "workers" in settings.model_fields_set
            devices = choose_devices(settings.device, settings.workers, given)
        runtime = devices[0].runtime
        self.device = ", ".join(dict.fromkeys(device.title for device in devices))
        """Names of the processors that run the layers."""
        self.tier = tier
        self.replica = settings.replica
        self.bundle = bundle
        self.layers = layers
        self.ready = False
        self.on_end: Callable[[LedgerEntry], None] | None = None
        """Called with the entry of each attempt that has ended."""
        self.certificate_id: str | None = None
        if settings.certificate is not None:
            self.certificate_id = load_certificate(
                settings.certificate,
                bundle,
                mobile_layers=settings.mobile_layers,
                edge_layers=settings.edge_layers,
                runtime=(tier, runtime),
            ).certificate_id
        self.workers = start_processes(bundle, layers, devices)
        log.info("the %s runs its layers on %s (%d workers)", tier, self.device, len(devices))
        manifest = bundle.manifest
        self._resume_limits = ResumeLimits(
            bundle.bundle_id, manifest.hidden_size, manifest.max_tokens, layers.last
        )
        encoder = TextEncoder(bundle.path / TOKENIZER, manifest.max_tokens)
        self.engine = Engine(
            encoder,
            self.workers,
            alpha,
            settings.max_queue,
            settings.max_queue_ms,
            best_batch
            if runtime == "onnx"
            else partial(bucketed_batch, widths=width_buckets(manifest.max_tokens)),
        )
        self.outbox = open_outbox(settings, tier.value)
        self._attempt_ids = AttemptIds(self.outbox.attempt_ids(REMEMBERED))
        self._entries = GroupCommitWriter(self.outbox, delay_s=0.0)
        self._refusals = GroupCommitWriter(self.outbox, delay_s=REFUSAL_DELAY_S)
        self.shipper = Shipper(
            self.outbox,
            settings.ledger_url,
            credentials=Credentials.of(settings),
            warning_s=settings.undelivered_warning_s,
        )

    def start(self) -> None:
        """Start delivering entries to the ledger and accept requests."""
        self.shipper.start()
        self.ready = True

    def close(self) -> None:
        """Finish running work and deliver ledger entries for up to two seconds."""
        self.ready = False
        self.engine.close()
        self.shipper.close(2.0)
        self.outbox.close()

    def undelivered(self) -> UndeliveredReport | None:
        """Return the entries that cannot be delivered to the ledger; None if deliveries succeed."""
        return self.shipper.undelivered()

    def outbox_report(self) -> OutboxReport:
        """Return the state of the outbox."""
        return self.outbox.report()

    async def infer(
        self, request: InferRequest, receive: Receive, trace: TraceContext | None = None
    ) -> InferResponse:
        """Answer an attempt from its text, unless its client disconnects first.

        Raises `AttemptRepeated` for an ``attempt_id`` that came before. ``receive`` is the HTTP
        request's ASGI callable, after its body. The attempt is part of ``trace``. An overloaded
        tier refuses before any other work. An accepted request counts as waiting at once, before it
        is in the engine's queue; otherwise one free slot would admit all requests that arrive
        together.
        """
        self._attempt_ids.accept(request.attempt_id)
        await self._refuse_if_overloaded(request, trace)
        ticket = AdmissionTicket(self.engine)
        try:
            return await cancel_on_disconnect(receive, self._infer(request, ticket, trace))
        finally:
            ticket.release()

    async def resume(
        self,
        request: ResumeRequest,
        state: bytes,
        receive: Receive,
        trace: TraceContext | None = None,
    ) -> InferResponse:
        """Answer an attempt from an encoded hidden state, unless its client disconnects first."""

        async def compute() -> Computed:
            self.check_ready()
            return await self.engine.resume(
                state, self._resume_limits, request.deadline_ms, request.alpha
            )

        self._attempt_ids.accept(request.attempt_id)
        entry = self._entry(request, request.text_hash, request.text_chars, trace)
        work = self._recorded(request, entry, compute, trace)
        return await cancel_on_disconnect(receive, work)

    async def _refuse_if_overloaded(
        self, request: InferRequest, trace: TraceContext | None
    ) -> None:
        """Record a refusal and raise `Overloaded` if the tier is overloaded."""
        if not (self.ready and self.engine.congested):
            return
        error = self.engine.refusal(request.deadline_ms)
        if error is not None:
            entry = self._text_entry(request, trace, State.REFUSED, error.code)
            await self._refusals.record(entry)
            self._ended(entry)
            raise error

    async def _infer(
        self, request: InferRequest, ticket: AdmissionTicket, trace: TraceContext | None
    ) -> InferResponse:
        async def compute() -> Computed:
            self.check_ready()
            self._check_inputs(request)
            ticket.release()
            return await self.engine.run(
                request.text, request.pair, request.deadline_ms, request.alpha
            )

        return await self._recorded(request, self._text_entry(request, trace), compute, trace)

    def _text_entry(
        self,
        request: InferRequest,
        trace: TraceContext | None,
        state: State = State.OPEN,
        error_code: str | None = None,
    ) -> LedgerEntry:
        text_hash = self.outbox.hash_text(request.text, request.pair)
        text_chars = len(request.text) + len(request.pair or "")
        return self._entry(request, text_hash, text_chars, trace, state, error_code)

    def _entry(
        self,
        request: AttemptRequest,
        text_hash: str | None,
        text_chars: int | None,
        trace: TraceContext | None,
        state: State = State.OPEN,
        error_code: str | None = None,
    ) -> LedgerEntry:
        return LedgerEntry(
            attempt_id=request.attempt_id,
            side=Side.TIER,
            request_id=request.request_id,
            ordinal=request.ordinal,
            tier=self.tier,
            replica=self.replica,
            state=state,
            error_code=error_code,
            writer=self.tier.value,
            bundle_id=self.bundle.bundle_id,
            started_at=time.time(),
            text_hash=text_hash,
            text_chars=text_chars,
            trace_id=None if trace is None else trace.trace_id,
            span_id=None if trace is None else trace.span_id,
        )

    async def _recorded(
        self,
        request: AttemptRequest,
        entry: LedgerEntry,
        compute: Callable[[], Awaitable[Computed]],
        trace: TraceContext | None,
    ) -> InferResponse:
        """Record the open attempt, compute its answer and record the end.

        Raises `NotReady` if the outbox cannot be written, because no attempt may start or be
        answered without its entries.
        """
        started = time.perf_counter()
        end: dict[str, Any] = {"state": State.ABANDONED}
        try:
            await self._entries.record(entry)
            answer = self._response(request, await compute(), started)
            if trace is not None and trace.span_id is not None:
                _add_answer(trace, answer)
            answered = entry.with_facts(answer.ledger_facts())
            await self._entries.record(answered)
            end = {}
            self._ended(answered)
            return answer
        except DimeeError as error:
            late = isinstance(error, DeadlineExceeded)
            end = {"state": State.TIMED_OUT if late else State.REFUSED, "error_code": error.code}
            raise
        except Exception:
            end = {"state": State.FAILED, "error_code": "internal"}
            raise
        finally:
            if end:
                ended = entry.with_facts(end)
                self.outbox.record_or_buffer(ended)
                self._ended(ended)

    def _ended(self, entry: LedgerEntry) -> None:
        if self.on_end is not None:
            self.on_end(entry)

    def check_ready(self) -> None:
        """Raise `NotReady` if no request can be answered now."""
        if not self.ready:
            raise NotReady(f"the {self.tier} is not ready; ask /readyz")
        if self.engine.down:
            raise NotReady(f"{self.tier}: {DOWN}")

    def _check_inputs(self, request: InferRequest) -> None:
        if request.bundle_id is not None and request.bundle_id != self.bundle.bundle_id:
            raise BundleMismatch(
                f"bundle_id: the {self.tier} runs {self.bundle.bundle_id}, not the caller's "
                f"{request.bundle_id}; start both with the same bundle",
                field="bundle_id",
            )
        manifest = self.bundle.manifest
        check_inputs(
            [request.text],
            None if request.pair is None else [request.pair],
            manifest.pairs,
            manifest.task,
        )

    def _response(
        self, request: AttemptRequest, computed: Computed, started: float
    ) -> InferResponse:
        labels = self.bundle.manifest.labels
        prediction = computed.prediction
        return InferResponse(
            attempt_id=request.attempt_id,
            tier=self.tier,
            label=labels[prediction.label_index],
            probabilities=dict(zip(labels, prediction.probabilities, strict=True)),
            confidence=prediction.confidence,
            exit_layer=prediction.exit_layer,
            resumed_after=computed.resumed_after,
            tokens=computed.tokens,
            truncated=computed.truncated,
            bundle_id=self.bundle.bundle_id,
            queue_ms=computed.queue_ms,
            compute_ms=computed.compute_ms,
            tier_ms=(time.perf_counter() - started) * 1e3,
        )


def _add_answer(trace: TraceContext, answer: InferResponse) -> None:
    """Add an answer to the span of its request."""
    first_layer = (answer.resumed_after or 0) + 1
    add_layers(trace, answer.queue_ms, answer.compute_ms, first_layer, answer.exit_layer)
    trace.set(
        {
            "dimee.attempt_id": answer.attempt_id,
            "dimee.tier": answer.tier,
            "dimee.exit_layer": answer.exit_layer,
            "dimee.confidence": answer.confidence,
            "dimee.tokens": answer.tokens,
            "dimee.bundle_id": answer.bundle_id,
        }
    )
