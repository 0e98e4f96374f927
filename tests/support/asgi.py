"""An ASGI scope for tests that call an application without a server."""

from __future__ import annotations

from typing import Any


def infer_scope() -> dict[str, Any]:
    """Return the scope of ``POST /v1/infer`` with a JSON body."""
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "path": "/v1/infer", "raw_path": b"/v1/infer", "query_string": b"", "scheme": "http",
        "headers": [(b"content-type", b"application/json")], "root_path": "",
        "client": ("127.0.0.1", 1), "server": ("tier", 80),
    }  # fmt: skip
