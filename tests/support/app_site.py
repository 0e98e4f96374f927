"""The app on a server of static files that tests change, with a ledger that answers as they say."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mobile_client.settings import MobileSettings
from mobile_client.web.export import static_config, write_app
from shared.bundle.loading import Bundle
from shared.bundle.mobile_bundle import make_mobile_bundle
from tests.support.static_server import QuietHandler, static_server

NOWHERE = "http://127.0.0.1:9"
LEDGER = "ledger"
"""Base URL of the ledger, relative to the page."""

Answer = tuple[int, dict[str, Any]]


class AppSite:
    """A folder with the exported app and its address.

    ``answer`` gets the entries of each delivery and returns the ledger's status and body;
    ``deliveries`` are the entries of each delivery in order. ``failing`` are names of files whose
    next request fails, ``stalled`` of those whose second half waits until ``resumed`` is set.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.deliveries: list[list[dict[str, Any]]] = []
        self.failing: set[str] = set()
        self.stalled: set[str] = set()
        self.resumed = threading.Event()
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
        self.replace_manifest(files=self._manifest["files"] | {path: facts})

    def replace_manifest(self, **values: Any) -> None:
        """Replace values of the first bundle's manifest."""
        manifest = json.dumps(self._manifest | values)
        (self.folder / "bundle" / "manifest.json").write_text(manifest)

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
    site = AppSite(folder / "site")

    class Handler(QuietHandler):
        """Serves files, and the ledger's intake."""

        def do_GET(self) -> None:
            """Send a file; redirect from the page's name to its folder, as some servers do."""
            name = self.path.rsplit("/", 1)[-1]
            if name in site.stalled:
                self._stall()
                return
            if name in site.failing:
                site.failing.remove(name)
                self.send_error(503)
                return
            if name != "index.html":
                super().do_GET()
                return
            self.send_response(301)
            self.send_header("location", "./")
            self.send_header("content-length", "0")
            self.end_headers()

        def _stall(self) -> None:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            with suppress(OSError):  # the browser has broken it off
                self.wfile.write(content[:half])
                site.resumed.wait()
                self.wfile.write(content[half:])

        def do_POST(self) -> None:
            """Take a delivery."""
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                entries = json.loads(body)["entries"]
            except json.JSONDecodeError:
                status, answer = refusal(422, "invalid_input")
            else:
                site.deliveries.append(entries)
                status, answer = site.answer(entries)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with static_server(folder, handler=Handler) as site.url:
        yield site
