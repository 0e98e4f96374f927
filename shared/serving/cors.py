"""Lets pages of other origins call a service from a browser (CORS), if the settings name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

from shared.addresses import split_origins
from shared.replica import HEADER
from shared.settings import ServiceSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

DELIVERY_HEADER = "dimee-delivery"
"""Header of the gateway's relay: `not_sent` or `unknown`, for an error without the tier's entry."""
PREFLIGHT_S = 600


def install_cors(app: FastAPI, settings: ServiceSettings) -> None:
    """Add the middleware, before all that were added so far; none without origins.

    A preflight request has no token, so that this middleware must come before authentication.
    Cookies are never accepted from other origins.
    """
    origins = split_origins(settings.web_origins)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "traceparent", "tracestate"],
            expose_headers=[HEADER, DELIVERY_HEADER, "retry-after"],
            max_age=PREFLIGHT_S,
        )
