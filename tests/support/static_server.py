"""Python's own server of static files, on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class QuietHandler(SimpleHTTPRequestHandler):
    """Handler of Python's own file server, without its log."""

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def static_server(
    folder: Path, port: int = 0, handler: type[QuietHandler] = QuietHandler
) -> Iterator[str]:
    """Serve a folder on loopback; yield the server's origin."""
    with ThreadingHTTPServer(
        ("127.0.0.1", port), partial(handler, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
