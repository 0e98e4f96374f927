"""``/docs``: the page of a service's OpenAPI document, with Swagger UI from this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response

from shared.serving.packaged_files import CONTENT_SECURITY_POLICY, PackagedFiles

SWAGGER = Path(__file__).parent / "swagger"
"""Swagger UI (Apache-2.0) with the page and the script that start it."""
POLICY = f"{CONTENT_SECURITY_POLICY}; img-src 'self' data:"
"""Swagger UI's style sheet contains its icons as data: addresses."""
WITHOUT_FASTAPIS_PAGES: dict[str, Any] = {"docs_url": None, "redoc_url": None}
"""Options of `FastAPI`: its own pages load their scripts from another host."""

GET_OR_HEAD = ["GET", "HEAD"]


def install_docs(app: FastAPI) -> None:
    """Serve ``/docs``, which needs nothing of the internet, and send ``/redoc`` there."""
    files = PackagedFiles(SWAGGER, POLICY)

    @app.api_route("/docs", methods=GET_OR_HEAD, include_in_schema=False)
    async def docs(request: Request) -> Response:
        """Return the page."""
        return await files.response("docs.html", request.headers)

    @app.api_route("/docs/static/{name}", methods=GET_OR_HEAD, include_in_schema=False)
    async def docs_file(request: Request, name: str) -> Response:
        """Return a script, a style sheet or the icon of the page."""
        return await files.response(name, request.headers)

    @app.api_route("/redoc", methods=GET_OR_HEAD, include_in_schema=False)
    async def redoc() -> Response:
        """Send callers to ``/docs``."""
        return RedirectResponse("docs")
