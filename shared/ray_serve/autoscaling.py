"""Autoscaling of a tier's replicas on Ray Serve by the tier's own queue.

Ray copies this module to its controller, which runs the policy, so it imports the standard library
only. Ray limits the result to ``min_replicas`` and ``max_replicas`` and applies the delays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

QUEUE_WAIT_MS = "queue_wait_ms"
"""Name of the metric: expected wait of a new request in a replica, in milliseconds."""
BUSY_SHARE = "busy_share"
"""Name of the metric: share of the time in which a replica's workers had texts to run."""
TARGET_WAIT_MS, TARGET_BUSY = 5.0, 0.7
"""Targets of the two. A saturated edge had a mean wait of 8.5 ms on 2 cores, because admission
refuses what would wait longer; a target above that is never reached."""
TOLERANCE = 0.1
"""Deviation from the target that changes nothing, as in Kubernetes' HorizontalPodAutoscaler."""
MAX_GROWTH = 2.0
"""Largest factor by which one decision raises the number of replicas."""


class ScalingContext(Protocol):
    """Fields of ``ray.serve.config.AutoscalingContext`` that the policy reads."""

    current_num_replicas: int
    target_num_replicas: int
    aggregated_metrics: Mapping[str, Mapping[Any, float]] | None


class QueueWaitPolicy:
    """Keep the mean expected wait and the mean busy share of the replicas at their targets.

    The number of replicas is multiplied by the larger ratio of a metric to its target. The wait
    shows a queue before the workers are busy all the time; the busy share shows by how much
    replicas can be fewer, and that a tier is full whose admission keeps the queue short.
    """

    def __init__(
        self, target_wait_ms: float = TARGET_WAIT_MS, target_busy: float = TARGET_BUSY
    ) -> None:
        self._targets = {QUEUE_WAIT_MS: target_wait_ms, BUSY_SHARE: target_busy}

    def __call__(self, context: ScalingContext) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas to have, and no state."""
        metrics = context.aggregated_metrics or {}
        ratios = [
            sum(values.values()) / len(values) / target
            for name, target in self._targets.items()
            if (values := metrics.get(name))
        ]
        if not ratios or not context.current_num_replicas:
            return context.target_num_replicas, {}
        ratio = min(max(ratios), MAX_GROWTH)
        if abs(ratio - 1) <= TOLERANCE:
            return context.target_num_replicas, {}
        return max(1, math.ceil(context.current_num_replicas * ratio)), {}


class BusyShare:
    """Share of the time in which workers were busy, since the last call.

    ``workers`` is their number. Times are in seconds of one clock.
    """

    def __init__(self, workers: int, now_s: float) -> None:
        self._workers = workers
        self._at_s, self._busy_ms = now_s, 0.0

    def since_last(self, busy_ms: float, now_s: float) -> float:
        """Return the share until ``now_s``; ``busy_ms`` is the total of all workers since 0."""
        passed_ms = (now_s - self._at_s) * 1e3 * self._workers
        worked_ms = busy_ms - self._busy_ms
        self._at_s, self._busy_ms = now_s, busy_ms
        return min(1.0, worked_ms / passed_ms) if passed_ms > 0 else 0.0
