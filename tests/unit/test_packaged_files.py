"""Files of a page: kinds, compression, validation of a browser's copy, headers, and /docs."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.testclient import TestClient

from cloud_server.app import create_app as create_cloud
from cloud_server.settings import CloudSettings
from edge_server.app import create_app as create_edge
from edge_server.settings import EdgeSettings
from shared.ledger.server.app import create_app as create_ledger
from shared.ledger.server.settings import LedgerSettings
from shared.serving.packaged_files import MEDIA_TYPES, PackagedFiles
from tests.support.gateway import make_gateway
from tests.support.paths import BUNDLE

PAGE = "<!doctype html>" + "<p>text</p>" * 100


@pytest.fixture
def browser(tmp_path: Path) -> TestClient:
    folder = tmp_path / "static"
    (folder / "js").mkdir(parents=True)
    (folder / "index.html").write_text(PAGE)
    (folder / "js" / "main.js").write_text("export {};")
    (folder / "icon.png").write_bytes(b"\x89PNG" + b"0" * 500)
    (folder / "notes.py").write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    files, app = PackagedFiles(folder), FastAPI()

    @app.api_route("/{name:path}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> Response:
        return await files.response(name, request.headers)

    return TestClient(app)


def test_file_has_its_type_and_headers_that_keep_other_sites_out(browser: TestClient) -> None:
    answer = browser.get("/js/main.js")
    assert answer.text == "export {};"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    policy = answer.headers["content-security-policy"].split("; ")
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not any("unsafe" in part for part in policy)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_text_is_compressed_for_browsers_that_accept_it(browser: TestClient) -> None:
    with browser.stream("GET", "/index.html", headers={"accept-encoding": "br, gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw).decode() == PAGE
    assert len(raw) == int(answer.headers["content-length"]) < len(PAGE)
    assert answer.headers["vary"] == "accept-encoding"
    for coding in ("identity", "gzip;q=0", "br"):
        plain = browser.get("/index.html", headers={"accept-encoding": coding})
        assert "content-encoding" not in plain.headers
        assert plain.text == PAGE
    assert "content-encoding" not in browser.get("/icon.png").headers


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_browser_with_a_current_copy_gets_no_body(browser: TestClient, coding: str) -> None:
    accepts = {"accept-encoding": coding}
    etag = browser.get("/index.html", headers=accepts).headers["etag"]
    for tag in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = browser.get("/index.html", headers=accepts | {"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    other = browser.get("/index.html", headers=accepts | {"if-none-match": '"other"'})
    assert other.status_code == 200
    assert browser.get("/index.html", headers=accepts).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    ["/notes.py", "/../outside.txt", "/%2e%2e/outside.txt", "/js/../../outside.txt", "/js", "/",
     "//etc/passwd", "/js%00main.js", "/index.html/"],
)  # fmt: skip
def test_only_files_of_the_folder_are_served(browser: TestClient, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_head_has_no_body(browser: TestClient) -> None:
    answer = browser.head("/index.html")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("service", ["mobile", "edge", "cloud", "ledger"])
def test_docs_load_nothing_from_another_host(tmp_path: Path, service: str) -> None:
    url = "http://127.0.0.1:9"
    tier = {"bundle": BUNDLE, "state_dir": tmp_path, "ledger_url": url, "workers": 1}
    apps = {
        "mobile": lambda: make_gateway(tmp_path),
        "edge": lambda: create_edge(EdgeSettings(**tier)),
        "cloud": lambda: create_cloud(CloudSettings(**tier)),
        "ledger": lambda: create_ledger(LedgerSettings(state_dir=tmp_path)),
    }
    with TestClient(apps[service]()) as browser:
        page = browser.get("/docs")
        assert page.status_code == 200
        addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(addresses) == 4
        for address in addresses:
            assert "//" not in address
            file = browser.get(f"/{address}")
            assert file.status_code == 200
            assert file.headers["content-type"] in MEDIA_TYPES.values()
        assert browser.get("/redoc").url.path == "/docs"
        assert "/docs" not in browser.get("/openapi.json").json()["paths"]
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert browser.head("/docs").status_code == 200
