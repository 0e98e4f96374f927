"""Starts and stops the gRPC server with the gateway, if the settings give it a port.

This module imports no gRPC package, which only the extra ``grpc`` installs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from mobile_client.settings import MobileSettings
from shared.connections import GRACEFUL_STOP_S
from shared.extras import PACKAGES, require
from shared.serving.server import is_stopping

if TYPE_CHECKING:
    from mobile_client.gateway.protocols.grpc_server import GrpcServer

STOP_POLL_S = 0.1
"""Interval in seconds at which the server is asked whether it has been told to stop."""


def check_grpc(settings: MobileSettings) -> None:
    """Raise `DimeeError` if the settings ask for a gRPC server that cannot be started."""
    if settings.grpc_port is None:
        return
    require(PACKAGES["grpc"], "DIMEE_GRPC_PORT", "service", "grpc")
    # the library logs a line for each refused message, so that any caller could fill the log
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from mobile_client.gateway.protocols.grpc_server import check_grpc_settings

    check_grpc_settings(settings)


@asynccontextmanager
async def serving_grpc(app: FastAPI, settings: MobileSettings) -> AsyncIterator[None]:
    """Serve ``app`` over gRPC during the block, if the settings give it a port.

    Calls in progress get the same time to end as those over HTTP, from the signal to stop.
    """
    if settings.grpc_port is None:
        yield
        return
    from mobile_client.gateway.protocols.grpc_server import GrpcServer

    server = GrpcServer(app, settings)
    await server.start()
    watcher = asyncio.create_task(_stop_on_signal(app, server))
    try:
        yield
    finally:
        await server.stop(GRACEFUL_STOP_S)
        watcher.cancel()


async def _stop_on_signal(app: FastAPI, server: GrpcServer) -> None:
    """Stop the gRPC server when the HTTP server is told to stop, which then waits for its own."""
    while not is_stopping(app):  # noqa: ASYNC110 - uvicorn sets a flag and no event
        await asyncio.sleep(STOP_POLL_S)
    await server.stop(GRACEFUL_STOP_S)
