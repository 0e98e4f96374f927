"""Application of the cloud server: all layers."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI

from cloud_server.settings import CloudSettings
from shared.bundle.loading import load_bundle, tier_layers
from shared.domain import Tier
from shared.inference.devices import ComputeDevice
from shared.tier_server.app import create_tier_app
from shared.tier_server.service import TierService


def create_app(settings: CloudSettings, devices: Sequence[ComputeDevice] | None = None) -> FastAPI:
    """Load and check the bundle and return the application; raise `BundleError` if that fails.

    ``devices`` replaces those of the settings, one for each worker process.
    """
    bundle = load_bundle(settings.bundle)
    layers = tier_layers(bundle, settings.mobile_layers, settings.edge_layers).cloud
    service = TierService(Tier.CLOUD, bundle, layers, None, settings, devices)
    return create_tier_app(service, settings)
