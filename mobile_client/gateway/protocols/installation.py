"""Adds the endpoints of all protocols to the gateway."""

from __future__ import annotations

from fastapi import FastAPI

from mobile_client.gateway.protocols import classify_endpoints, huggingface, open_inference
from mobile_client.gateway.protocols.calls import ProtocolCalls
from mobile_client.gateway.protocols.huggingface import MODELS, PREDICT, ROOT
from mobile_client.gateway.protocols.protocol_errors import (
    ErrorShape,
    ProtocolErrors,
    huggingface_error,
    open_inference_error,
    openai_error,
)
from shared.wire import BundleDescription

PROBES = frozenset({"/health", *open_inference.PROBES})
"""Paths without authentication and rate limit, as ``/healthz`` and ``/readyz``."""
_HUGGINGFACE = frozenset({PREDICT, "/info", "/health"})


def call_paths(description: BundleDescription) -> frozenset[str]:
    """Return the paths of the calls that classify."""
    return (
        huggingface.call_paths(description)
        | open_inference.call_paths(description)
        | classify_endpoints.PATHS
    )


def binary_paths(description: BundleDescription) -> frozenset[str]:
    """Return the paths whose bodies may be binary."""
    return open_inference.call_paths(description)


def install_protocols(app: FastAPI, calls: ProtocolCalls) -> None:
    """Add the endpoints, and `ProtocolErrors` before all middleware added so far."""
    huggingface.install_huggingface(app, calls)
    open_inference.install_open_inference(app, calls)
    classify_endpoints.install_classify(app, calls)
    app.add_middleware(ProtocolErrors, shape_of=error_shape)


def error_shape(method: str, path: str) -> ErrorShape | None:
    """Return the shape of the errors of a path; None for a path that belongs to no protocol."""
    if path == ROOT:
        return None if method in ("GET", "HEAD") else huggingface_error
    if path in _HUGGINGFACE or path.startswith(MODELS):
        return huggingface_error
    if path == open_inference.PREFIX or path.startswith(f"{open_inference.PREFIX}/"):
        return open_inference_error
    if path in classify_endpoints.PATHS or path in classify_endpoints.MODEL_LISTS:
        return openai_error
    return None
