"""Shared by tests: LET_IN, REFUSED, T, edge, body, talk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI

from edge_server.app import create_app
from edge_server.settings import EdgeSettings
from shared.errors import Overloaded
from tests.support.paths import BUNDLE, free_ports
from tests.support.servers import serving

T = TypeVar("T")


REFUSED = Overloaded("the queue stands; try again in 2.4 s", limit=50, retry_after_s=2.4)


LET_IN = {"deadline_ms": 60_000}


def edge(folder: Path, **more: Any) -> FastAPI:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    return create_app(
        EdgeSettings(bundle=BUNDLE, state_dir=folder, threads=1, ledger_url=url, **more)
    )


def talk(app: FastAPI, say: Callable[[uvicorn.Server, int], Awaitable[T]]) -> T:
    async def served() -> T:
        async with serving(app) as (server, port):
            return await say(server, port)

    return asyncio.run(asyncio.wait_for(served(), 30))


def body(number: int, **more: Any) -> dict[str, Any]:
    return {"request_id": f"r{number}", "attempt_id": f"a{number}", "text": "fine"} | more
