"""Serves the mobile part of the gateway's own bundle, which is made when it is first needed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers
from starlette.responses import Response

from shared.bundle.manifest import MANIFEST
from shared.bundle.mobile_bundle import MobileBundle
from shared.errors import NotFound
from shared.serving.packaged_files import matches_etag
from shared.serving.responses import error_response


class BundleFiles:
    """The files of the mobile bundle that ``make`` returns, with ``headers`` on every response.

    The bundle is made once, in a thread, and stays in memory. Used in one event loop.
    """

    def __init__(self, make: Callable[[], MobileBundle], headers: Mapping[str, str]) -> None:
        self._make = make
        self._headers = dict(headers)
        self._making: asyncio.Task[MobileBundle] | None = None

    def prepare(self) -> asyncio.Task[MobileBundle]:
        """Begin to make the bundle, or return the task that has; after an error, begin again."""
        task = self._making
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._making = asyncio.get_running_loop().create_task(
                asyncio.to_thread(self._make), name="mobile-bundle"
            )
            task.add_done_callback(_retrieve)  # the page's request does not wait for it
        return task

    async def response(self, name: str, request_headers: Headers) -> Response:
        """Return a file: 304 if the browser has it, 404 if there is none; may raise `BundleError`.

        A browser asks every time whether its copy is current.
        """
        # shielded: other callers wait for the same task
        bundle = await asyncio.shield(self.prepare())
        content = bundle.files.get(name)
        if content is None:
            return error_response(NotFound("path: the mobile bundle has no such file"))
        listed = bundle.manifest.files.get(name)
        digest = hashlib.sha256(content).hexdigest() if listed is None else listed.sha256
        etag = digest[:32]
        headers = self._headers | {"etag": f'"{etag}"'}
        if matches_etag(request_headers.get("if-none-match", ""), etag):
            return Response(status_code=304, headers=headers)
        kind = "application/json" if name == MANIFEST else "application/gzip"
        return Response(content, headers=headers, media_type=kind)


def _retrieve(task: asyncio.Task[MobileBundle]) -> None:
    """Take note of the task's error, which asyncio logs otherwise; callers get it again."""
    if not task.cancelled():
        task.exception()
