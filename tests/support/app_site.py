"""The app on a server of static files that tests change, with a ledger that answers as they say."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from mobile_client.settings import MobileSettings
from mobile_client.web.export import static_config, write_app
from shared.bundle.loading import Bundle
from shared.bundle.mobile_bundle import make_mobile_bundle
from shared.serving.packaged_files import MEDIA_TYPES

NOWHERE = "http://127.0.0.1:9"
LEDGER = "ledger"
"""Base URL of the ledger, relative to the page."""

Answer = tuple[int, dict[str, Any]]


class AppSite:
    """A folder with the exported app and its address.

    ``answer`` gets the entries of each delivery and returns the ledger's status and body;
    ``deliveries`` are the entries of each delivery in order.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.deliveries: list[list[dict[str, Any]]] = []
        self.answer: Callable[[list[dict[str, Any]]], Answer] = stored
        self._manifest = json.loads((folder / "bundle" / "manifest.json").read_bytes())

    @property
    def delivered(self) -> list[dict[str, Any]]:
        """All entries that were sent, also repeatedly."""
        return [entry for batch in self.deliveries for entry in batch]

    def replace_bundle_file(self, path: str, content: bytes) -> None:
        """Replace a file of the first bundle, with its size and hash in the manifest."""
        (self.folder / "bundle" / path).write_bytes(content)
        facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest = self._manifest | {"files": self._manifest["files"] | {path: facts}}
        (self.folder / "bundle" / "manifest.json").write_text(json.dumps(manifest))

    def replace_config(self, **values: Any) -> None:
        """Replace values of config.json."""
        file = self.folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_bytes()) | values))


def stored(entries: list[dict[str, Any]]) -> Answer:
    """Answer as a ledger that has stored all entries."""
    return 200, {"stored": len(entries), "duplicates": 0}


def refusal(status: int, code: str) -> Answer:
    """Return an error in the form of this project."""
    return status, {"error": {"code": code, "message": "refused"}}


def compressed(content: bytes) -> bytes:
    """Return the content in gzip's format."""
    return gzip.compress(content, mtime=0)


@contextmanager
def app_site(folder: Path, bundle: Bundle, mobile_layers: int = 1) -> Iterator[AppSite]:
    """Serve the app at ``/site/``; nothing listens at the addresses of edge and cloud."""
    config = static_config(
        MobileSettings(), bundle, gateway=None, edge=NOWHERE, cloud=NOWHERE, ledger=None,
        needs_token=False,
    )  # fmt: skip
    config = config.model_copy(update={"ledger": LEDGER})
    write_app(make_mobile_bundle(bundle, mobile_layers, 3), config, folder / "site")
    handler = partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        site = AppSite(folder / "site", f"http://127.0.0.1:{server.server_port}")
        _Handler.sites[server.server_port] = site
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
            del _Handler.sites[server.server_port]


class _Handler(SimpleHTTPRequestHandler):
    """Serves files with the media types that browsers need, and the ledger's intake."""

    extensions_map: ClassVar[dict[str, str]] = {**MEDIA_TYPES, "": "application/octet-stream"}
    sites: ClassVar[dict[int, AppSite]] = {}

    def do_POST(self) -> None:
        """Take a delivery."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != f"/site/{LEDGER}/v1/entries":
            self.send_error(404)
            return
        site = self.sites[self.server.server_address[1]]
        entries = json.loads(body)["entries"]
        site.deliveries.append(entries)
        status, answer = site.answer(entries)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""
