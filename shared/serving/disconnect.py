"""Work that ends when its client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")
CLIENT_CLOSED_REQUEST = 499
"""What servers log for a client that did not wait; nobody receives it."""


class ClientDisconnected(Exception):
    """The client closed its connection; nobody reads an answer."""


async def cancel_on_disconnect(message: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do ``work`` until it ends or the client is gone; then it is cancelled and ends first.

    Call it when the body has been read: all that can come after it is the end of the connection.
    Raises `ClientDisconnected`.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(message))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnected
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _gone(message: Request) -> None:
    while (await message.receive())["type"] != "http.disconnect":
        pass
