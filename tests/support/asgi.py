"""Shared by tests: scope."""

from __future__ import annotations

from typing import Any


def scope() -> dict[str, Any]:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "path": "/v1/infer", "raw_path": b"/v1/infer", "query_string": b"", "scheme": "http",
        "headers": [(b"content-type", b"application/json")], "root_path": "",
        "client": ("127.0.0.1", 1), "server": ("tier", 80),
    }  # fmt: skip
