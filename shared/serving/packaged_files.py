"""Files of a package, served to browsers: from memory, compressed, with ETag and safe headers."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response

from shared.errors import NotFound
from shared.serving.responses import error_response

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gz": "application/gzip",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
"""Kinds of files that are served. A fixed table: the system's may call a script plain text, which
browsers refuse to run."""
_UNCOMPRESSED = frozenset({".gz", ".png"})


def security_headers(policy: str = CONTENT_SECURITY_POLICY) -> dict[str, str]:
    """Return the headers of a page and its files, which keep other sites out of it."""
    return {
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }


@dataclass(frozen=True)
class PackagedFile:
    """One file. It is read when it is first asked for, and kept."""

    path: Path

    @cached_property
    def content(self) -> bytes:
        """The bytes of the file."""
        return self.path.read_bytes()

    @cached_property
    def compressed(self) -> bytes | None:
        """The bytes in gzip's format; None if that does not make them fewer."""
        if self.path.suffix in _UNCOMPRESSED:
            return None
        compressed = gzip.compress(self.content, mtime=0)
        return compressed if len(compressed) < len(self.content) else None

    @cached_property
    def etag(self) -> str:
        """Hash of the content, without quotation marks."""
        return hashlib.sha256(self.content).hexdigest()[:32]

    def load(self) -> None:
        """Read and compress the file."""
        _ = self.compressed, self.etag


class PackagedFiles:
    """The files of one folder and its subfolders, by their path below it.

    The folder is searched once, so that no path of a request ever reaches the file system. Only
    `MEDIA_TYPES` are served. Every response has ``more_headers`` too.
    """

    def __init__(
        self,
        folder: Path,
        policy: str = CONTENT_SECURITY_POLICY,
        more_headers: Mapping[str, str] | None = None,
    ) -> None:
        self._headers = security_headers(policy) | dict(more_headers or {})
        self._files = {
            path.relative_to(folder).as_posix(): PackagedFile(path)
            for path in sorted(folder.rglob("*"))
            if path.suffix in MEDIA_TYPES and path.is_file()
        }

    async def response(self, name: str, request_headers: Headers) -> Response:
        """Return the file as a response: 304 if the browser has it, 404 if there is none.

        A browser asks every time whether its copy is current, because an upgrade changes files but
        not their addresses.
        """
        file = self._files.get(name)
        if file is None:
            return error_response(NotFound("path: there is no such file"))
        if "content" not in file.__dict__:
            await run_in_threadpool(file.load)
        body, etag = file.content, file.etag
        headers = self._headers | {"cache-control": "no-cache", "vary": "accept-encoding"}
        if file.compressed is not None and _accepts_gzip(request_headers):
            body, etag = file.compressed, f"{etag}-gzip"
            headers["content-encoding"] = "gzip"
        headers["etag"] = f'"{etag}"'
        if matches_etag(request_headers.get("if-none-match", ""), etag):
            headers.pop("content-encoding", None)
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=MEDIA_TYPES[file.path.suffix])


def _accepts_gzip(headers: Headers) -> bool:
    for coding in headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() in ("gzip", "*"):
            return weight.strip().replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def matches_etag(if_none_match: str, etag: str) -> bool:
    """Return whether an ``If-None-Match`` header names ``etag``."""
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in ("*", f'"{etag}"') for tag in tags)
