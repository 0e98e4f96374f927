"""Description of a bundle for the clients of a gateway."""

from __future__ import annotations

from dataclasses import asdict

from shared.bundle.loading import Bundle
from shared.wire import BundleDescription


def describe(bundle: Bundle) -> BundleDescription:
    """Return what a client needs to know to send texts of the bundle's task."""
    manifest = bundle.manifest
    return BundleDescription(
        bundle_id=bundle.bundle_id,
        task=manifest.task,
        labels=list(manifest.labels),
        pairs=manifest.pairs,
        fields=asdict(bundle.field_names()),
        samples=bundle.samples(),
    )
