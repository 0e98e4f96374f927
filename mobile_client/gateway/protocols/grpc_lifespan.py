"""Starts and stops the gRPC server with the gateway, if the settings give it a port.

This module imports no gRPC package, which only the extra ``grpc`` installs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from mobile_client.settings import MobileSettings
from shared.connections import GRACEFUL_STOP_S
from shared.extras import PACKAGES, require


def check_grpc(settings: MobileSettings) -> None:
    """Raise `DimeeError` if the settings ask for a gRPC server that cannot be started."""
    if settings.grpc_port is None:
        return
    require(PACKAGES["grpc"], "DIMEE_GRPC_PORT", "service", "grpc")
    from mobile_client.gateway.protocols.grpc_server import check_grpc_settings

    check_grpc_settings(settings)


@asynccontextmanager
async def serving_grpc(app: ASGIApp, settings: MobileSettings) -> AsyncIterator[None]:
    """Serve ``app`` over gRPC during the block, if the settings give it a port."""
    if settings.grpc_port is None:
        yield
        return
    from mobile_client.gateway.protocols.grpc_server import GrpcServer

    server = GrpcServer(app, settings)
    await server.start()
    try:
        yield
    finally:
        await server.stop(GRACEFUL_STOP_S)
