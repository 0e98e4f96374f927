"""An edge application and requests for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI

from edge_server.app import create_app
from edge_server.settings import EdgeSettings
from tests.support.paths import BUNDLE, free_ports


def create_edge(state_dir: Path, **settings: Any) -> FastAPI:
    """Return an edge with one worker and a ledger address at which nothing listens."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    return create_app(
        EdgeSettings(bundle=BUNDLE, state_dir=state_dir, workers=1, ledger_url=url, **settings)
    )


def infer_body(number: int, **fields: Any) -> dict[str, Any]:
    """Return the body of attempt ``a{number}``; ``fields`` are added or replaced."""
    return {"request_id": f"r{number}", "attempt_id": f"a{number}", "text": "fine"} | fields
