"""The FastAPI application that edge and cloud share; each gives its own layers and threshold."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from shared.bundle import Bundle
from shared.domain import LayerRange, Tier
from shared.errors import BundleMismatch, DeadlineExceeded, DimeeError, NotReady
from shared.ledger.entry import LedgerEntry, Side, State
from shared.ledger.outbox import Outbox
from shared.ledger.shipper import Shipper
from shared.runtime.classifier import Classifier
from shared.service.engine import Computed, Engine
from shared.service.plumbing import BodyLimit, install_error_handlers
from shared.service.settings import TierSettings
from shared.text import check_inputs
from shared.wire import MAX_BODY_BYTES, InferRequest, InferResponse


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
        classifier = Classifier(bundle, layers, settings.threads)
        classifier.warm_up()
        self._engine = Engine(classifier, alpha, settings.max_queue)
        self._outbox = Outbox.claim(Path(settings.state_dir) / tier.value, writer=tier.value)
        self._shipper = Shipper(self._outbox, settings.ledger_url)

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

    async def infer(self, request: InferRequest) -> InferResponse:
        """Book, answer, book; every way out leaves a terminal entry."""
        arrived = time.perf_counter()
        entry = LedgerEntry(
            attempt_id=request.attempt_id,
            side=Side.TIER,
            request_id=request.request_id,
            ordinal=request.ordinal,
            tier=self.tier,
            state=State.OPEN,
            writer=self.tier.value,
            bundle_id=self.bundle.bundle_id,
            started_at=time.time(),
            text_hash=self._outbox.hash_text(request.text, request.pair),
            text_chars=len(request.text) + len(request.pair or ""),
        )
        self._outbox.record(entry)
        ended: dict[str, Any] = {"state": State.ABANDONED}
        try:
            self._check(request)
            computed = await self._engine.run(
                request.text, request.pair, request.deadline_ms, request.alpha
            )
            answer = self._answer(request, computed, arrived)
            ended = answer.ledger_facts()
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
            self._outbox.record(entry.model_copy(update=ended))

    def _check(self, request: InferRequest) -> None:
        if not self.ready:
            raise NotReady(f"the {self.tier} is not ready; ask /readyz")
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

    def _answer(self, request: InferRequest, computed: Computed, arrived: float) -> InferResponse:
        labels = self.bundle.manifest.labels
        prediction = computed.prediction
        return InferResponse(
            attempt_id=request.attempt_id,
            tier=self.tier,
            label=labels[prediction.label_index],
            probabilities=dict(zip(labels, prediction.probabilities, strict=True)),
            confidence=prediction.confidence,
            exit_layer=prediction.exit_layer,
            tokens=computed.encoded.tokens,
            truncated=computed.encoded.truncated,
            bundle_id=self.bundle.bundle_id,
            queue_ms=computed.queue_ms,
            compute_ms=computed.compute_ms,
            tier_ms=(time.perf_counter() - arrived) * 1e3,
        )


def create_tier_app(service: TierService) -> FastAPI:
    """``POST /v1/infer``, ``/healthz``, ``/readyz`` and OpenAPI for one tier."""

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

    @app.post("/v1/infer")
    async def infer(request: InferRequest) -> InferResponse:
        """Answer one attempt with this tier's layers."""
        return await service.infer(request)

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
        }

    return app
