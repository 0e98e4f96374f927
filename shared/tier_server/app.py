"""The FastAPI application that edge and cloud share; each gives its own layers and threshold."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response

from shared.bundle.loading import Bundle
from shared.bundle.manifest import TOKENIZER
from shared.certificates.certificate import load_certificate
from shared.credentials import Credentials
from shared.domain import LayerRange, Side, State, Tier
from shared.errors import BundleMismatch, DeadlineExceeded, DimeeError, NotReady
from shared.field_types import Count, Identifier, Word
from shared.inference.codec import MEDIA_TYPE, ResumeLimits
from shared.inference.process_batcher import start_processes
from shared.inference.tokenizer import TextEncoder
from shared.ledger.entry import LedgerEntry
from shared.ledger.group_commit import GroupCommitWriter
from shared.ledger.outbox import Outbox
from shared.ledger.shipper import Shipper
from shared.serving.auth import always, install_auth
from shared.serving.disconnect import (
    CLIENT_CLOSED_REQUEST,
    ClientDisconnected,
    cancel_on_disconnect,
)
from shared.serving.lane import Lane, Tell, tell_outcome
from shared.serving.server import BodyLimit, install_error_handlers
from shared.settings import TierSettings
from shared.text import check_inputs
from shared.tier_server.engine import AdmissionTicket, Computed, Engine
from shared.wire import (
    MAX_BODY_BYTES,
    Alpha,
    AttemptRequest,
    DeadlineMs,
    InferRequest,
    InferResponse,
    ResumeRequest,
)

log = logging.getLogger(__name__)

GATHER_S = 0.002
"""How long a refusal waits for others, to be written to the outbox with them."""
RESUME_BODY = {
    "requestBody": {
        "required": True,
        "description": "the output of a layer for one text, as `shared.inference.codec.encode` "
        "writes it: safetensors with the codec fp16 or int8",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


class TierService:
    """One tier at work: its layers, its engine and its side of the ledger."""

    def __init__(
        self,
        tier: Tier,
        bundle: Bundle,
        layers: LayerRange,
        alpha: float | None,
        settings: TierSettings,
    ) -> None:
        self.tier = tier
        self.bundle = bundle
        self.layers = layers
        self.ready = False
        self.certificate_id: str | None = None
        if settings.certificate is not None:
            self.certificate_id = load_certificate(
                settings.certificate,
                bundle,
                mobile_layers=settings.mobile_layers,
                edge_layers=settings.edge_layers,
            ).certificate_id
        flows = start_processes(bundle, layers, settings.threads)
        manifest = bundle.manifest
        self._limits = ResumeLimits(
            bundle.bundle_id, manifest.hidden_size, manifest.max_tokens, layers.last
        )
        encoder = TextEncoder(bundle.path / TOKENIZER, manifest.max_tokens)
        self._engine = Engine(encoder, flows, alpha, settings.max_queue, settings.max_queue_ms)
        self._outbox = Outbox.claim(Path(settings.state_dir) / tier.value, writer=tier.value)
        self._together = GroupCommitWriter(self._outbox, 0.0)
        self._refusals = GroupCommitWriter(self._outbox, GATHER_S)
        self._shipper = Shipper(
            self._outbox, settings.ledger_url, credentials=Credentials.of(settings)
        )

    def start(self) -> None:
        """Begin to deliver entries; the tier is ready."""
        self._shipper.start()
        self.ready = True

    def close(self) -> None:
        """Finish running work and deliver what can be delivered."""
        self.ready = False
        self._engine.close()
        self._shipper.close(2.0)
        self._outbox.close()

    async def infer(
        self, request: InferRequest, arrived: Callable[[], None] | None = None
    ) -> InferResponse:
        """Answer an attempt from its text; every way out leaves a terminal entry.

        ``arrived`` is called when it is at the queue.
        """
        entry = self._entry(
            request,
            self._outbox.hash_text(request.text, request.pair),
            len(request.text) + len(request.pair or ""),
        )

        async def work() -> Computed:
            self._check_ready()
            self._check(request)
            if arrived is not None:
                arrived()
            return await self._engine.run(
                request.text, request.pair, request.deadline_ms, request.alpha
            )

        return await self._booked(request, entry, work)

    def take(self, request: InferRequest, tell: Tell) -> asyncio.Task[None] | None:
        """As `infer`, but refuses before any work, and counts whom it lets in at once.

        Otherwise one free place would let in all that is read before the first is in the queue.
        """
        if self._engine.congested and self._refuses(request, tell):
            return None
        place = AdmissionTicket(self._engine)
        work = tell_outcome(lambda: self.infer(request, place.leave), tell)
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: place.leave())
        return task

    def _refuses(self, request: InferRequest, tell: Tell) -> bool:
        """Book and tell the refusal of a request that comes now; False where it is let in."""
        error = self._engine.refusal(request.deadline_ms) if self.ready else None
        if error is None:
            return False
        entry = self._entry(
            request,
            self._outbox.hash_text(request.text, request.pair),
            len(request.text) + len(request.pair or ""),
            State.REFUSED,
            error.code,
        )
        self._refusals.record(entry, lambda full: tell(error if full is None else full))
        return True

    async def resume(self, request: ResumeRequest, state: bytes) -> InferResponse:
        """Answer an attempt from a hidden state; every way out leaves a terminal entry."""

        async def work() -> Computed:
            self._check_ready()
            return await self._engine.resume(
                state, self._limits, request.deadline_ms, request.alpha
            )

        entry = self._entry(request, request.text_hash, request.text_chars)
        return await self._booked(request, entry, work)

    def _entry(
        self,
        request: AttemptRequest,
        text_hash: str | None,
        text_chars: int | None,
        state: State = State.OPEN,
        error_code: str | None = None,
    ) -> LedgerEntry:
        return LedgerEntry(
            attempt_id=request.attempt_id,
            side=Side.TIER,
            request_id=request.request_id,
            ordinal=request.ordinal,
            tier=self.tier,
            state=state,
            error_code=error_code,
            writer=self.tier.value,
            bundle_id=self.bundle.bundle_id,
            started_at=time.time(),
            text_hash=text_hash,
            text_chars=text_chars,
        )

    async def _booked(
        self, request: AttemptRequest, entry: LedgerEntry, work: Callable[[], Awaitable[Computed]]
    ) -> InferResponse:
        """Book, answer, book; where neither can be booked, refuse."""
        arrived = time.perf_counter()
        ended: dict[str, Any] = {"state": State.ABANDONED}
        try:
            await self._together.written(entry)
            answer = self._answer(request, await work(), arrived)
            await self._together.written(entry.model_copy(update=answer.ledger_facts()))
            ended = {}
            return answer
        except DimeeError as error:
            late = isinstance(error, DeadlineExceeded)
            ended = {
                "state": State.TIMED_OUT if late else State.REFUSED,
                "error_code": error.code,
            }
            raise
        except Exception:
            ended = {"state": State.FAILED, "error_code": "internal"}
            raise
        finally:
            if ended:
                self._outbox.record_or_buffer(entry.model_copy(update=ended))

    def _check_ready(self) -> None:
        if not self.ready:
            raise NotReady(f"the {self.tier} is not ready; ask /readyz")

    def _check(self, request: InferRequest) -> None:
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

    def _answer(self, request: AttemptRequest, computed: Computed, arrived: float) -> InferResponse:
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
            tier_ms=(time.perf_counter() - arrived) * 1e3,
        )


def create_tier_app(service: TierService, settings: TierSettings) -> FastAPI:
    """``POST /v1/infer``, ``/v1/resume``, ``/healthz``, ``/readyz`` and OpenAPI for one tier."""
    if settings.price_book is not None:
        log.warning(
            "DIMEE_PRICE_BOOK=%s changes nothing here: prices are booked by the mobile, and the %s "
            "reports milliseconds only",
            settings.price_book,
            service.tier,
        )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title=f"dimee {service.tier}",
        summary=f"Layers {service.layers.first} to {service.layers.last} of a text classifier",
        version="1",
        lifespan=lifespan,
    )
    install_error_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    door = install_auth(app, settings, always("infer"))
    app.state.lane = Lane(b"/v1/infer", service.take, door)

    @app.exception_handler(ClientDisconnected)
    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    @app.post("/v1/infer")
    async def infer(request: InferRequest, message: Request) -> InferResponse:
        """Answer one attempt with this tier's layers."""
        return await cancel_on_disconnect(message, service.infer(request))

    @app.post("/v1/resume", openapi_extra=RESUME_BODY)
    async def resume(
        request: Annotated[ResumeRequest, Depends(_resume_request)], message: Request
    ) -> InferResponse:
        """Answer one attempt with this tier's layers after the one that the state comes from.

        The facts of the attempt are headers, and the body is the state. A state of another bundle
        is refused with 409, and one after a layer that this tier does not go on from with 422.
        """
        state = await message.body()
        return await cancel_on_disconnect(message, service.resume(request, state))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """The bundle is loaded and checked; 503 otherwise."""
        if not service.ready:
            raise NotReady(f"the {service.tier} is not ready")
        return {
            "status": "ready",
            "tier": service.tier.value,
            "bundle_id": service.bundle.bundle_id,
            "layers": service.layers.last,
            "certificate_id": service.certificate_id,
        }

    return app


def _resume_request(
    dimee_request_id: Annotated[Identifier, Header()],
    dimee_attempt_id: Annotated[Identifier, Header()],
    dimee_ordinal: Annotated[int, Header(ge=1, le=1000)] = 1,
    dimee_deadline_ms: Annotated[DeadlineMs, Header()] = 5_000.0,
    dimee_alpha: Annotated[Alpha | None, Header()] = None,
    dimee_text_hash: Annotated[Word | None, Header()] = None,
    dimee_text_chars: Annotated[Count | None, Header()] = None,
) -> ResumeRequest:
    return ResumeRequest(
        request_id=dimee_request_id,
        attempt_id=dimee_attempt_id,
        ordinal=dimee_ordinal,
        deadline_ms=dimee_deadline_ms,
        alpha=dimee_alpha,
        text_hash=dimee_text_hash,
        text_chars=dimee_text_chars,
    )
