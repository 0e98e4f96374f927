"""Exception handlers that give every service the same error body."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from shared.errors import DimeeError, InvalidInput, NotFound
from shared.serving.disconnect import CLIENT_CLOSED_REQUEST, ClientDisconnected
from shared.serving.redaction import RedactErrors
from shared.serving.responses import error_response, http_error_response
from shared.validation import request_error


def install_error_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every error with ``{"error": {…}}``.

    The body repeats neither the input nor anything internal.
    """

    @app.exception_handler(DimeeError)
    async def dimee_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, DimeeError)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(request_error(error.errors()[0]))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return error_response(NotFound("path: is not known; see /docs"))
        if error.status_code == 400:  # FastAPI's answer to a body that cannot be decoded
            return error_response(InvalidInput("body: is not valid JSON", field="body"))
        return http_error_response(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(ClientDisconnected)
    async def disconnected(_: Request, __: Exception) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    app.add_middleware(RedactErrors)
