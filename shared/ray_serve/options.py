"""Options of a tier on Ray Serve: of a Serve config file and of ``dimee serve-ray``."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.connections import CLOSE_S, GRACEFUL_STOP_S
from shared.ray_serve.autoscaling import TARGET_BUSY, TARGET_WAIT_MS, QueueWaitPolicy
from shared.serving.connection import ConnectionLimits
from shared.settings import TierSettings, read_settings

MAX_REPLICAS = 1_000
HAPROXY_DRAIN_S = 30.0
"""Time in which a replica that is to stop still gets requests from HAProxy: the default of Ray's
``RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S``. It counts as a part of the time to stop."""
STOP_S = HAPROXY_DRAIN_S + GRACEFUL_STOP_S + CLOSE_S
"""Most time in which a replica stops: a request in flight has its whole deadline, and entries are
then delivered to the ledger. Without HAProxy it takes less."""


class RayOptions(BaseModel):
    """Options of a tier's deployment. Its other settings are the nodes' ``DIMEE_*`` variables."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that run layers in each replica; a replica reserves as many CPUs."""
    gpus: Annotated[int, Field(ge=0, le=256)] = 0
    """GPUs that a replica reserves; its processes, one for each, replace the ``workers``."""
    min_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 1
    """Least number of replicas."""
    max_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] | None = None
    """Largest number of replicas. Unset: as many as `min_replicas`, without autoscaling."""
    target_wait_ms: Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)] = TARGET_WAIT_MS
    """Expected wait in a replica's queue, in milliseconds, above which replicas are added."""
    target_busy: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = TARGET_BUSY
    """Share of the time in which workers run texts above which replicas are added, and below which
    they are removed."""
    upscale_delay_s: Annotated[float, Field(ge=0, le=3_600, allow_inf_nan=False)] = 15.0
    """Seconds for which more replicas must be needed before they are added."""
    downscale_delay_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 300.0
    """Seconds for which fewer replicas must be needed before they are removed."""
    look_back_s: Annotated[float, Field(gt=10, le=3_600, allow_inf_nan=False)] = 30.0
    """Seconds over which wait and busy share are averaged; above Ray's 10 s between two reports."""
    host: str = "0.0.0.0"
    """Address at which Serve's proxies listen, the same as `http_options.host`. Tokens are required
    unless it is a loopback address."""

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas is less than min_replicas; raise it, or leave it out")
        return self


def deployment_options(tier: str, options: RayOptions) -> dict[str, Any]:
    """Return the arguments of ``ray.serve.deployment`` for a tier.

    The tier's own admission decides which requests wait or are refused. Ray must therefore not
    queue: ``max_ongoing_requests`` is the number of connections that the tier's own server accepts,
    far above what its admission lets wait. ``max_queued_requests`` limits those that wait in a
    proxy while no replica runs.
    """
    connections = ConnectionLimits().connections
    found: dict[str, Any] = {
        "name": tier,
        "max_ongoing_requests": connections,
        "max_queued_requests": connections,
        "ray_actor_options": {"num_cpus": options.workers}
        | ({"num_gpus": options.gpus} if options.gpus else {}),
        "graceful_shutdown_timeout_s": STOP_S,
        "graceful_shutdown_wait_loop_s": 0.5,
        # like the other servers: requests are in the ledger, not in a log
        "logging_config": {"enable_access_log": False},
    }
    if options.max_replicas is None or options.max_replicas == options.min_replicas:
        return found | {"num_replicas": options.min_replicas}
    policy = f"{QueueWaitPolicy.__module__}:{QueueWaitPolicy.__name__}"
    targets = {"target_wait_ms": options.target_wait_ms, "target_busy": options.target_busy}
    return found | {
        "autoscaling_config": {
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "upscale_delay_s": options.upscale_delay_s,
            "downscale_delay_s": options.downscale_delay_s,
            "look_back_period_s": options.look_back_s,
            "policy": {"policy_function": policy, "policy_kwargs": targets},
        }
    }


def settings_of_replica(kind: type[TierSettings], options: RayOptions) -> TierSettings:
    """Return the settings of a replica from the environment of its node.

    A replica that reserves no GPU runs its layers on cores, unless ``DIMEE_DEVICE`` is ``cuda``:
    with ``auto`` all replicas of a node would use its first GPU.
    """
    settings = read_settings(kind, host=options.host, workers=options.gpus or options.workers)
    if settings.device == "auto" and not options.gpus:
        return settings.model_copy(update={"device": "cpu"})
    return settings
