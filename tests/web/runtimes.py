"""Node and Chromium for the mobile client's JavaScript, and a server of its files."""

from __future__ import annotations

import json
import mimetypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from shared.bundle.loading import load_bundle
from shared.bundle.mobile_bundle import MobileBundle, make_mobile_bundle
from tests.support.paths import BUNDLE, REPOSITORY
from tests.web.text_cases import MOBILE_LAYERS

WEB = REPOSITORY / "mobile_client" / "web"
FOLDER = Path(__file__).parent
TIMEOUT_S = 240.0
EDGE_LAYERS = 3
OLDEST_NODE = 20
POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'"
"""Content-Security-Policy of the app's scripts, under which the tests run too."""


def shipped() -> MobileBundle:
    """Return the mobile part of the shipped bundle."""
    return make_mobile_bundle(load_bundle(BUNDLE), MOBILE_LAYERS, EDGE_LAYERS)


def written(bundle: MobileBundle, folder: Path) -> Path:
    """Write the files of a mobile bundle, and return the folder."""
    for name, content in bundle.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def node() -> str:
    """Return the path of node; skip the test without it, or with an old one."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node; install Node.js 20 or newer to run this test")
    version = run([found, "--version"], FOLDER).strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"node {version} is too old; install Node.js 20 or newer to run this test")
    return found


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Run a command, which must succeed, and return its output."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4_000:]
    return done.stdout


def result_of(browser: Browser, url: str, timeout_s: float) -> Any:
    """Open a page that leaves its result as JSON in ``data-result``, and return that."""
    page = browser.new_page()
    page.goto(url)
    page.wait_for_selector("body[data-result]", state="attached", timeout=timeout_s * 1e3)
    result = json.loads(page.locator("body").get_attribute("data-result") or "")
    page.close()
    assert "error" not in result, result["error"]
    return result


@contextmanager
def served(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve the tests, the app's files and ``files`` at ``/bundle``; yield the address."""
    mimetypes.add_type("text/javascript", ".mjs")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].removeprefix("/")
            content = files.get(path.removeprefix("bundle/"))
            if not path.startswith("bundle/"):
                file = (REPOSITORY / path).resolve()
                allowed = any(file.is_relative_to(one) for one in (FOLDER, WEB / "static"))
                content = file.read_bytes() if allowed and file.is_file() else None
            self.send_response(404 if content is None else 200)
            kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
            self.send_header("content-type", kind)
            self.send_header("content-security-policy", POLICY)
            # as the gateway's /app: the browser's clock is finer then
            self.send_header("cross-origin-opener-policy", "same-origin")
            self.send_header("cross-origin-embedder-policy", "require-corp")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
