"""What the refusing protocol takes for granted of uvicorn; a version that differs fails here."""

from __future__ import annotations

import hashlib
import inspect
import resource
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server

from edge_server.app import create_app as create_edge
from edge_server.settings import EdgeSettings
from shared.ledger.server.app import create_app as create_ledger
from shared.ledger.server.settings import LedgerSettings
from shared.serving.protocol import LaneProtocol
from shared.serving.server import allow_connections, server_options
from tests.support.paths import BUNDLE, free_ports

READ = {
    HttpToolsProtocol.connection_made: "6efb565ff3d3",
    HttpToolsProtocol.connection_lost: "c91a4c9bf2e2",
    HttpToolsProtocol.data_received: "010a7ae59a5d",
    HttpToolsProtocol.on_message_begin: "96d377fdc7c2",
    HttpToolsProtocol.on_header: "65d62c044f61",
    HttpToolsProtocol.on_headers_complete: "1ea8589acfad",
    HttpToolsProtocol.on_body: "dba9c32aeba3",
    HttpToolsProtocol.on_message_complete: "1fbad42dc31f",
    HttpToolsProtocol.on_response_complete: "64e254f28e38",
    HttpToolsProtocol.shutdown: "d7351fa33f00",
    Server.on_tick: "60ea49b06ccf",
}
"""The methods of uvicorn 0.54 that were read, and a digest of each one's code."""


def digest(method: object) -> str:
    return hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:12]  # type: ignore[arg-type]


def test_uvicorn_is_the_one_that_was_read() -> None:
    """After an update: read what changed, then write the new digests."""
    assert {one.__qualname__: digest(one) for one in READ} == {
        one.__qualname__: known for one, known in READ.items()
    }


def test_only_a_tier_has_it(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    tier = EdgeSettings(bundle=BUNDLE, state_dir=tmp_path, threads=1, ledger_url=url)
    http = server_options(create_edge(tier))["http"]
    assert issubclass(http, LaneProtocol)
    assert uvicorn.Config("none", http=http).http == http
    assert "http" not in server_options(create_ledger(LedgerSettings(state_dir=tmp_path)))


def test_many_connections_are_allowed_where_the_system_lets_them() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        allow_connections()
        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert now > 2_000 or now == most
        assert most == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
