"""Prometheus metrics that all services share: families, latency buckets and bounded labels.

Names follow https://prometheus.io/docs/practices/naming/: base units in the name, ``_total`` for
counters. Labels take few values, and never an id or a text.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.domain import State
from shared.version import VERSION

LATENCY_BUCKETS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds in seconds of the histograms of queue, compute, network and total time."""
ENDS: tuple[State, ...] = tuple(state for state in State if state is not State.OPEN)
"""Values of the label ``result``: the states in which an attempt or a request ends."""
MAX_VALUES = 32
"""Most values of a label whose values are names that users choose."""
OTHER = "other"
"""Value of such a label beyond `MAX_VALUES`."""


class BoundedLabel:
    """Returns the first `MAX_VALUES` different values unchanged, and `OTHER` for all later ones."""

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the label's value for ``value``."""
        if value in self._known:
            return value
        if len(self._known) >= self._max_values:
            return OTHER
        self._known.add(value)
        return value


class ScrapedState(Collector):
    """Families that ``read`` computes at each scrape, in the thread that renders the answer."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Return the present values."""
        return self._read()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not read the state."""
        return ()


def new_registry() -> CollectorRegistry:
    """Return a registry with the build and the process metrics (CPU, memory, open files)."""
    # otherwise each counter and histogram has a second series with its time of creation
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Gauge(
        "dimee_build_info",
        "Versions of dimee and Python, always 1.",
        ("version", "python"),
        registry=registry,
    )
    build.labels(VERSION, platform.python_version()).set(1)
    return registry


def gauge(name: str, meaning: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return GaugeMetricFamily(name, meaning, value=value)


def counter(name: str, meaning: str, value: float) -> Metric:
    """Return a counter without labels; ``name`` ends in ``_total``."""
    return CounterMetricFamily(name, meaning, value=value)


def labelled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[tuple[str, ...], float]
) -> Metric:
    """Add a sample for each tuple of label values, and return the family."""
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def one_of(
    name: str, meaning: str, label: str, states: Sequence[str], current: Mapping[str, str]
) -> Metric:
    """Return a gauge that is 1 for the current state of each tier and 0 for its other states."""
    family = GaugeMetricFamily(name, meaning, labels=("tier", label))
    for tier, state in current.items():
        for one in states:
            family.add_metric((tier, one), float(one == state))
    return family
