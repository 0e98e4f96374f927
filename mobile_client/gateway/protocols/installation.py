"""Adds the endpoints of all protocols to the gateway."""

from __future__ import annotations

from fastapi import FastAPI

from mobile_client.gateway.protocols import huggingface
from mobile_client.gateway.protocols.calls import ProtocolCalls
from mobile_client.gateway.protocols.huggingface import MODELS, PREDICT, ROOT
from mobile_client.gateway.protocols.protocol_errors import (
    ErrorShape,
    ProtocolErrors,
    huggingface_error,
)
from shared.wire import BundleDescription

_HUGGINGFACE = frozenset({PREDICT, "/info", "/health"})


def call_paths(description: BundleDescription) -> frozenset[str]:
    """Return the paths of the calls that classify."""
    return huggingface.call_paths(description)


def install_protocols(app: FastAPI, calls: ProtocolCalls) -> None:
    """Add the endpoints, and `ProtocolErrors` before all middleware added so far."""
    huggingface.install_huggingface(app, calls)
    app.add_middleware(ProtocolErrors, shape_of=error_shape)


def error_shape(method: str, path: str) -> ErrorShape | None:
    """Return the shape of the errors of a path; None for a path that belongs to no protocol."""
    if path == ROOT:
        return None if method in ("GET", "HEAD") else huggingface_error
    if path in _HUGGINGFACE or path.startswith(MODELS):
        return huggingface_error
    return None
