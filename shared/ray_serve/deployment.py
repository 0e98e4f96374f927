"""The deployment of a tier on Ray Serve: its application, unchanged, in each replica."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from shared.ray_serve.autoscaling import BUSY_SHARE, QUEUE_WAIT_MS, BusyShare
from shared.ray_serve.options import RayOptions, deployment_options, settings_of_replica
from shared.ray_serve.replica_slots import ReplicaSlot, claim_slot
from shared.serving.auth import refuse_unprotected_service
from shared.serving.server import configure_logging, tune_process
from shared.settings import TierSettings
from shared.tier_server.service import TierService

CreateApp = Callable[..., FastAPI]


class TierReplica:
    """One replica: a process with the tier's application, queue, workers and outbox.

    ``tier`` is also the name of its folder in the state directory. The settings are read from the
    environment of the replica's node; its name is the node's with the number of its slot.
    """

    def __init__(
        self, tier: str, create_app: CreateApp, settings: type[TierSettings], options: RayOptions
    ) -> None:
        self._slot: ReplicaSlot | None = None
        loaded = settings_of_replica(settings, options)
        configure_logging(loaded.log_level)
        refuse_unprotected_service(loaded)
        self._slot = claim_slot(loaded.state_dir, tier)
        name = self._slot.name(loaded.replica)
        self._app = create_app(loaded.model_copy(update={"replica": name}))
        self._service: TierService = self._app.state.service
        self._busy = BusyShare(len(self._service.workers), time.monotonic())
        tune_process()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application, for ``serve.ingress``."""
        return self._app

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the metrics of `QueueWaitPolicy`; Ray Serve calls this at intervals."""
        state = self._service.engine.state()
        share = self._busy.since_last(state.busy_ms, time.monotonic())
        return {QUEUE_WAIT_MS: state.expected_wait_ms, BUSY_SHARE: share}

    def __del__(self) -> None:
        """Free the slot; Ray Serve calls this after the application's shutdown."""
        if self._slot is not None:
            self._slot.close()


def tier_application(
    tier: str, create_app: CreateApp, settings: type[TierSettings], options: RayOptions
) -> Application:
    """Return the Serve application of a tier; ``create_app`` takes ``settings``' instance."""
    deployment = serve.deployment(**deployment_options(tier, options))
    return deployment(serve.ingress()(TierReplica)).bind(tier, create_app, settings, options)
