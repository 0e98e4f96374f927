"""Scraping a service's metrics, and reading what it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

WAIT_S = 60.0


@dataclass(frozen=True)
class Scrape:
    """The metrics of one service at one time."""

    text: str
    families: dict[str, Metric]

    @classmethod
    def of(cls, text: str) -> Scrape:
        """Read an answer of ``/metrics``."""
        return cls(text, {family.name: family for family in text_string_to_metric_families(text)})

    def total(self, name: str, /, **labels: str | tuple[str, ...]) -> float:
        """Return the sum of the samples ``name`` whose labels have these values.

        A tuple allows several values. The name must be known, so that no test adds up nothing.
        """
        family = name.removesuffix("_total").removesuffix("_count").removesuffix("_sum")
        samples = self.families.get(family, self.families.get(name))
        assert samples is not None, f"{name} is missing"
        return sum(
            sample.value
            for sample in samples.samples
            if sample.name == name
            and all(
                sample.labels[label] in ((value,) if isinstance(value, str) else value)
                for label, value in labels.items()
            )
        )


def scrape(url: str, headers: dict[str, str] | None = None) -> Scrape:
    """Return the metrics of the service at ``url``."""
    response = httpx.get(f"{url}/metrics", headers=headers, trust_env=False, timeout=30)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Scrape.of(response.text)


def scrape_until(url: str, reached: Callable[[Scrape], bool]) -> Scrape:
    """Scrape until a condition holds; fail if that takes longer than `WAIT_S`."""
    until = time.monotonic() + WAIT_S
    while not reached(found := scrape(url)):
        assert time.monotonic() < until, found.text
        time.sleep(0.1)
    return found
