"""Every server outlasts every client, and is given the time to end its requests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from fastapi import FastAPI

from shared.connections import (
    CALLER_IDLE_S,
    CLIENT_IDLE_S,
    CLOSE_S,
    GRACEFUL_STOP_S,
    LINK_MARGIN_S,
    SERVER_IDLE_S,
)
from shared.field_types import MAX_DEADLINE_MS
from shared.link_profiles import LINKS, parse_link
from shared.serving.server import SERVER_OPTIONS, ServerConfig
from tests.support.paths import REPOSITORY

SOURCES = ("shared", "mobile_client", "edge_server", "cloud_server", "testbed")


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for folder in SOURCES:
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            yield file.relative_to(REPOSITORY), ast.parse(file.read_text(encoding="utf-8"))


def test_server_waits_longer_than_any_client_and_a_round_trip_on_any_link() -> None:
    slowest = [*LINKS.values(), parse_link("satellite,one_way_ms=10000,jitter_ms=5000")]
    round_trip_s = max(link.round_trip_ms + 2 * link.jitter_ms for link in slowest) / 1e3
    assert SERVER_OPTIONS["timeout_keep_alive"] == SERVER_IDLE_S
    assert round_trip_s <= LINK_MARGIN_S
    assert max(CLIENT_IDLE_S, CALLER_IDLE_S) + round_trip_s <= SERVER_IDLE_S


def test_every_http_client_has_the_idle_time_of_the_one_place() -> None:
    # clients that give no limits have httpx's documented default
    assert httpx.Limits().keepalive_expiry == CLIENT_IDLE_S
    given = [
        (f"{file}:{keyword.value.lineno}", ast.unparse(keyword.value))
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "keepalive_expiry"
    ]
    assert len(given) >= 2
    assert {value for _, value in given} == {"CLIENT_IDLE_S"}, given
    without_idle_time = [
        f"{file}:{node.lineno}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("ConnectionPool")
        and [ast.unparse(one.value) for one in node.keywords if one.arg == "keepalive_expiry"]
        != ["CLIENT_IDLE_S"]
    ]
    assert without_idle_time == []


def test_every_server_has_the_idle_time_of_the_one_place() -> None:
    """The servers of other projects that are compared in benchmarks have their own."""
    config = ServerConfig(FastAPI())
    assert config.timeout_keep_alive == SERVER_IDLE_S
    assert config.timeout_graceful_shutdown == GRACEFUL_STOP_S
    elsewhere = [
        f"{file}:{node.lineno}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("uvicorn.run", "uvicorn.Config")
        and not file.is_relative_to("testbed/bench/servers")
    ]
    assert elsewhere == []


def test_requests_with_the_longest_deadline_end_before_a_server_stops() -> None:
    assert SERVER_OPTIONS["timeout_graceful_shutdown"] == GRACEFUL_STOP_S
    assert MAX_DEADLINE_MS / 1e3 < GRACEFUL_STOP_S


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/compose.links.yml"])
def test_containers_are_not_killed_before_their_requests_have_ended(file: str) -> None:
    services = yaml.safe_load((REPOSITORY / file).read_text(encoding="utf-8"))["services"]
    times = {one["stop_grace_period"] for one in services.values() if "stop_grace_period" in one}
    assert times
    for time in times:
        seconds = re.fullmatch(r"(\d+)s", time)
        assert seconds is not None
        assert int(seconds[1]) >= GRACEFUL_STOP_S + CLOSE_S
