"""The mobile client's JavaScript: the shared cases in Python, node and Chromium, types, copies."""

from __future__ import annotations

import json
import mimetypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shared.bundle.loading import load_bundle
from shared.bundle.mobile_bundle import MobileBundle, make_mobile_bundle
from tests.support.browser import chromium
from tests.support.paths import BUNDLE, REPOSITORY
from tests.web import unicode_categories
from tests.web.evaluate import BOUNDS, difference, evaluate
from tests.web.make_cases import COUNTS, FILE
from tests.web.text_cases import MOBILE_LAYERS

WEB = REPOSITORY / "mobile_client" / "web"
FOLDER = Path(__file__).parent
TESTS = ("cases.test.js", "units.test.js")
TIMEOUT_S = 240.0
EDGE_LAYERS = 3
POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'"
"""Content-Security-Policy of the app's scripts, under which the cases run too."""
mimetypes.add_type("text/javascript", ".mjs")


@pytest.fixture(scope="module")
def mobile_bundle() -> MobileBundle:
    """The mobile part of the shipped bundle."""
    return make_mobile_bundle(load_bundle(BUNDLE), MOBILE_LAYERS, EDGE_LAYERS)


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    """The file of shared cases."""
    document: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return document


def test_there_are_500_cases_with_their_bounds(cases: dict[str, Any]) -> None:
    found = [case["kind"] for case in cases["cases"]]
    assert {kind: found.count(kind) for kind in COUNTS} == COUNTS
    assert len(found) == sum(COUNTS.values()) == 500
    assert cases["bounds"] == BOUNDS


@pytest.mark.parametrize("kind", COUNTS)
def test_python_gives_the_results_of_the_file(cases: dict[str, Any], kind: str) -> None:
    places = {}
    for case in cases["cases"]:
        if case["kind"] == kind:
            found = evaluate(case, cases["routers"])
            places[case["name"]] = difference(found, case["expected"], BOUNDS[kind])
    wrong = {name: place for name, place in places.items() if place is not None}
    assert wrong == {}, "write the file again with: python -m tests.web.make_cases"


def test_unicode_sets_are_those_of_the_tokenizers() -> None:
    written = unicode_categories.FILE.read_text(encoding="utf-8")
    assert written == unicode_categories.content()


def test_node_gives_the_results_of_the_file(mobile_bundle: MobileBundle, tmp_path: Path) -> None:
    for name, content in mobile_bundle.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    run([node(), "--test", *TESTS], FOLDER, DIMEE_TEST_BUNDLE=str(tmp_path))


def test_chromium_gives_the_results_of_the_file(mobile_bundle: MobileBundle) -> None:
    with chromium() as browser, served(mobile_bundle) as url:
        page = browser.new_page()
        page.goto(f"{url}/tests/web/page.html")
        page.wait_for_selector("body[data-result]", state="attached", timeout=TIMEOUT_S * 1e3)
        result = json.loads(page.locator("body").get_attribute("data-result") or "")
    assert {kind: one["found"] for kind, one in result.items()} == {kind: [] for kind in COUNTS}
    assert {kind: one["run"] for kind, one in result.items()} == COUNTS


def test_types_are_right() -> None:
    run([node(), installed("typescript/bin/tsc"), "--project", "tsconfig.json"], WEB)


def test_copied_packages_are_those_of_the_lock_file() -> None:
    installed("onnxruntime-web/package.json")
    run([node(), "vendor.mjs", "--check"], WEB)
    lock = json.loads((WEB / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for folder, name in (
        ("onnxruntime-web", "onnxruntime-web"),
        ("tokenizers", "@huggingface/tokenizers"),
    ):
        readme = (WEB / "static" / "vendor" / folder / "README.txt").read_text(encoding="utf-8")
        assert f"{name} {lock[f'node_modules/{name}']['version']}," in readme
        assert "Copyright" in (WEB / "static/vendor" / folder / "LICENSE.txt").read_text("utf-8")


@pytest.mark.parametrize(
    "path", sorted((WEB / "static" / "js" / "core").rglob("*.js")), ids=lambda path: path.name
)
def test_core_has_no_page_no_network_and_no_storage(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for word in ("document.", "window.", "fetch(", "indexedDB", "localStorage", "caches."):
        assert word not in text, word
    assert len(text.splitlines()) < 400, "one subject"


def node() -> str:
    """Return the path of node; skip the test without it."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node; install Node.js 20 or newer to run this test")
    return found


def installed(name: str) -> str:
    """Return a file in node_modules; skip the test if the packages are not installed."""
    file = WEB / "node_modules" / name
    if not file.exists():
        pytest.skip("the npm packages are not installed; run make web")
    return str(file)


def run(command: list[str], folder: Path, **environment: str) -> None:
    """Run a command, which must succeed."""
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


@contextmanager
def served(mobile_bundle: MobileBundle) -> Iterator[str]:
    """Serve the tests, the app's files and a mobile bundle; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/")
            if path.startswith("bundle/"):
                content = mobile_bundle.files.get(path.removeprefix("bundle/"))
            else:
                file = REPOSITORY / path
                allowed = any(file.is_relative_to(one) for one in (FOLDER, WEB / "static"))
                content = file.read_bytes() if allowed and file.is_file() else None
            self.send_response(404 if content is None else 200)
            kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
            self.send_header("content-type", kind)
            self.send_header("content-security-policy", POLICY)
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
