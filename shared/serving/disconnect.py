"""Cancels a request's work when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")
CLIENT_CLOSED_REQUEST = 499
"""Status for a request whose client disconnected; no client receives it."""


class ClientDisconnected(Exception):
    """The client closed its connection before the response was ready."""


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``; cancel it if the client disconnects first.

    ``receive`` is the request's ASGI callable, after the whole body has been read: the only message
    that can follow is ``http.disconnect``. ``work`` runs in the current task.

    Raises `ClientDisconnected` once the cancelled work has ended, or what ``work`` raises.
    """
    task = asyncio.current_task()
    assert task is not None
    disconnected = False

    async def watch() -> None:
        nonlocal disconnected
        while (await receive())["type"] != "http.disconnect":
            pass
        disconnected = True
        task.cancel()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        # as in asyncio.timeout: any other cancellation must not be replaced
        if disconnected and task.uncancel() == 0:
            raise ClientDisconnected from None
        raise
    finally:
        watcher.cancel()
