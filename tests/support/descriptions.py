"""Descriptions of bundles for tests that need no bundle."""

from __future__ import annotations

from shared.domain import InputText
from shared.wire import BundleDescription

SINGLE = BundleDescription(bundle_id="b" * 16, task="mood", labels=["bad", "good"], pairs=False)
PAIRS = BundleDescription(bundle_id="b" * 16, task="same", labels=["no", "yes"], pairs=True)


def with_samples(description: BundleDescription, *samples: InputText) -> BundleDescription:
    """Return the description with these sample texts."""
    return description.model_copy(update={"samples": list(samples)})
