"""Contract of ``POST /v1/infer``, answered by the plain ASGI endpoint or by FastAPI."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from shared.serving.tokens import new_token
from shared.tier_server.engine import Computed, Engine
from shared.tier_server.infer_endpoint import InferEndpoint
from shared.tier_server.service import TierService
from shared.wire import MAX_BODY_BYTES
from tests.support.asgi import infer_scope
from tests.support.outboxes import recorded_states
from tests.support.servers import RawConnection, post, post_chunked, run_with_server
from tests.support.tiers import create_edge, infer_body

MEASURED = {"queue_ms", "compute_ms", "tier_ms"}
CONTENT_TYPES = {
    "endpoint": "application/json",
    "fastapi": "application/json; charset=utf-8",
}
"""The endpoint leaves every other content type than plain JSON to FastAPI."""
CASES: list[tuple[object, int]] = [
    (infer_body(0), 200),
    (infer_body(1, deadline_ms=60_000, ordinal=2, alpha=0.5), 200),
    (infer_body(2, text=""), 422),
    (infer_body(3, text="\u200b"), 422),
    (infer_body(4, pair="and another"), 422),
    (infer_body(5, text="long " * 5000), 413),
    (infer_body(6, bundle_id="another"), 409),
    (infer_body(7, deadline_ms=1e-6), 504),
    (infer_body(8, colour="red"), 422),
    (infer_body(9, text=7), 422),
    (infer_body(10, deadline_ms=0), 422),
    ({"request_id": "r", "attempt_id": "a"}, 422),
    ({}, 422),
    (b"[]", 422),
    (b"{", 422),
    (b"", 422),
    (b"\xff", 422),
]


@pytest.fixture(params=sorted(CONTENT_TYPES))
def content_type(request: pytest.FixtureRequest) -> str:
    return CONTENT_TYPES[request.param]


def comparable(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body without measured times."""
    if body.get("error", {}).get("code") == "deadline_exceeded":
        return {"code": body["error"]["code"]}
    return {name: value for name, value in body.items() if name not in MEASURED}


async def send_each(port: int, requests: list[bytes]) -> list[tuple[int, dict[str, str], Any]]:
    """Send the requests one after the other on one connection."""
    connection = await RawConnection.open(port)
    responses = []
    for request in requests:
        connection.send(request)
        responses.append(await connection.response())
    connection.close()
    return responses


def test_endpoint_and_fastapi_give_the_same_answers(tmp_path: Path) -> None:
    def answers(name: str) -> list[tuple[int, dict[str, str], Any]]:
        requests = [post(body, content_type=CONTENT_TYPES[name]) for body, _ in CASES]

        async def client(_: uvicorn.Server, port: int) -> Any:
            return await send_each(port, requests)

        # a server of its own, because a tier answers each attempt_id once
        return run_with_server(create_edge(tmp_path / name), client)

    endpoint, fastapi = answers("endpoint"), answers("fastapi")
    assert [status for status, _, _ in endpoint] == [status for _, status in CASES]
    for one, other in zip(endpoint, fastapi, strict=True):
        assert one[0] == other[0]
        assert list(one[1]) == list(other[1])
        assert one[1]["content-type"] == other[1]["content-type"]
        assert comparable(one[2]) == comparable(other[2])


def test_only_valid_json_requests_are_answered_without_fastapi() -> None:
    passed_on: list[bytes] = []

    async def fastapi(scope: Any, receive: Any, send: Any) -> None:
        passed_on.append((await receive())["body"])

    class Answered(Exception):
        pass

    class StubService:
        async def infer(self, *_: Any) -> None:
            raise Answered

    async def call(body: bytes, **scope: Any) -> bool:
        """Return whether the endpoint answered the request itself."""

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(_: Any) -> None:
            raise AssertionError

        count = len(passed_on)
        try:
            await InferEndpoint(fastapi, StubService())(  # type: ignore[arg-type]
                infer_scope() | scope, receive, send
            )
        except Answered:
            return True
        assert passed_on[count:] == [body], "FastAPI receives the body unchanged"
        return False

    async def main() -> list[bool]:
        valid = json.dumps(infer_body(0)).encode()
        return [
            await call(valid),
            await call(valid, query_string=b"a=b"),
            await call(b'{"text": '),
            await call(valid, headers=[]),
            await call(valid, headers=[(b"content-type", b"text/plain")]),
            await call(valid, headers=[(b"content-type", b"application/json")] * 2),
            await call(valid, method="PUT"),
            await call(valid, path="/v1/infer/"),
            await call(valid, root_path="/v1"),
        ]

    assert asyncio.run(main()) == [True, True] + [False] * 7


def test_other_content_types_and_methods_are_refused(tmp_path: Path) -> None:
    async def client(_: uvicorn.Server, port: int) -> list[int]:
        requests = [
            post(infer_body(0), content_type="text/plain"),
            b"GET /v1/infer HTTP/1.1\r\nhost: tier\r\n\r\n",
            post(infer_body(1), path="/v1/infer/nothing"),
        ]
        return [status for status, _, _ in await send_each(port, requests)]

    assert run_with_server(create_edge(tmp_path), client) == [422, 405, 404]


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_body_above_the_limit_is_refused(tmp_path: Path, content_type: str, chunked: bool) -> None:
    large = b" " * (MAX_BODY_BYTES // 2 + 1)

    async def client(_: uvicorn.Server, port: int) -> Any:
        connection = await RawConnection.open(port)
        connection.send(
            post_chunked([large, large], content_type)
            if chunked
            else post(large + large, content_type=content_type)
        )
        found = await connection.response()
        connection.close()
        return found

    status, headers, body = run_with_server(create_edge(tmp_path), client)
    assert (status, headers["connection"]) == (413, "close")
    assert body["error"]["limit"] == MAX_BODY_BYTES


def test_chunked_and_slowly_sent_bodies_are_answered(tmp_path: Path, content_type: str) -> None:
    content = json.dumps(infer_body(0)).encode()

    async def client(_: uvicorn.Server, port: int) -> list[int]:
        connection = await RawConnection.open(port)
        connection.send(post_chunked([content[:10], content[10:]], content_type))
        statuses = [(await connection.response())[0]]
        connection.writer.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
        for byte in post(infer_body(1), content_type=content_type):
            connection.send(bytes([byte]))
            await asyncio.sleep(0)
        statuses.append((await connection.response())[0])
        connection.close()
        return statuses

    assert run_with_server(create_edge(tmp_path), client) == [200, 200]


def test_tokens_scopes_and_rate_limit_apply(tmp_path: Path, content_type: str) -> None:
    file = tmp_path / "tokens.jsonl"
    valid = new_token(file, "mobile", ["infer"])[0]
    other = new_token(file, "reader", ["ledger:read"])[0]
    tokens = [None, "wrong", other, valid, valid, valid]

    async def client(_: uvicorn.Server, port: int) -> list[Any]:
        requests = []
        for number, token in enumerate(tokens):
            lines = [] if token is None else [f"authorization: Bearer {token}"]
            requests.append(post(infer_body(number), *lines, content_type=content_type))
        return await send_each(port, requests)

    app = create_edge(tmp_path, tokens=file, rate_limit=1e-6, rate_burst=2)
    responses = run_with_server(app, client)
    codes = [body.get("error", {}).get("code") for _, _, body in responses]
    assert [status for status, _, _ in responses] == [401, 401, 403, 200, 200, 429]
    assert codes == ["unauthorised", "unauthorised", "forbidden", None, None, "rate_limited"]
    assert responses[0][1]["www-authenticate"] == 'bearer realm="dimee"'
    assert "infer" in responses[2][2]["error"]["message"]
    assert int(responses[5][1]["retry-after"]) > 0


def test_closing_tier_answers_503(
    tmp_path: Path, content_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(service: TierService) -> None:
        service.ready = False

    monkeypatch.setattr(TierService, "start", start)

    async def client(_: uvicorn.Server, port: int) -> Any:
        return await send_each(port, [post(infer_body(0), content_type=content_type)])

    ((status, _, body),) = run_with_server(create_edge(tmp_path), client)
    assert (status, body["error"]["code"]) == (503, "not_ready")
    assert recorded_states(tmp_path, "edge") == [("refused", "not_ready")]


def test_pipelined_requests_are_answered_in_order(tmp_path: Path, content_type: str) -> None:
    async def client(_: uvicorn.Server, port: int) -> list[Any]:
        connection = await RawConnection.open(port)
        bodies = [infer_body(0), b"{", infer_body(1), infer_body(2, text="")]
        connection.send(b"".join(post(body, content_type=content_type) for body in bodies))
        found = [await connection.response() for _ in bodies]
        connection.close()
        return found

    responses = run_with_server(create_edge(tmp_path), client)
    assert [status for status, _, _ in responses] == [200, 422, 200, 422]
    assert [responses[number][2]["attempt_id"] for number in (0, 2)] == ["a0", "a1"]


def test_connection_close_is_honoured(tmp_path: Path, content_type: str) -> None:
    async def client(_: uvicorn.Server, port: int) -> Any:
        connection = await RawConnection.open(port)
        connection.send(post(infer_body(0), "connection: close", content_type=content_type))
        status, headers, _ = await connection.response()
        return status, headers["connection"], await connection.closed_by_server()

    assert run_with_server(create_edge(tmp_path), client) == (200, "close", True)


def test_unexpected_errors_are_logged_without_their_message(
    tmp_path: Path,
    content_type: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*_: object) -> Computed:
        raise ValueError("fine")

    monkeypatch.setattr(Engine, "run", fail)

    async def client(_: uvicorn.Server, port: int) -> list[Any]:
        return await send_each(port, [post(infer_body(0), content_type=content_type)])

    ((status, _, body),) = run_with_server(create_edge(tmp_path), client)
    assert status == 500
    assert body["error"]["code"] == "internal"
    assert caplog.text.count("ValueError") == 1
    assert "fine" not in caplog.text
    assert recorded_states(tmp_path, "edge") == [("failed", "internal")]


def test_work_is_cancelled_when_the_client_disconnects(
    tmp_path: Path, content_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def client(_: uvicorn.Server, port: int) -> None:
        started, cancelled = asyncio.Event(), asyncio.Event()

        async def wait(*_: object) -> Computed:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        monkeypatch.setattr(Engine, "run", wait)
        connection = await RawConnection.open(port)
        connection.send(post(infer_body(0), content_type=content_type))
        await started.wait()
        connection.close()
        await cancelled.wait()

    run_with_server(create_edge(tmp_path), client)
    assert recorded_states(tmp_path, "edge") == [("abandoned", None)]


def test_shutdown_waits_for_running_work(
    tmp_path: Path, content_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def client(server: uvicorn.Server, port: int) -> tuple[int, str | None]:
        started, resume = asyncio.Event(), asyncio.Event()
        run = Engine.run

        async def held(self: Engine, *arguments: Any) -> Computed:
            started.set()
            await resume.wait()
            return await run(self, *arguments)

        monkeypatch.setattr(Engine, "run", held)
        connection = await RawConnection.open(port)
        connection.send(post(infer_body(0), content_type=content_type))
        await started.wait()
        for one in list(server.server_state.connections):
            one.shutdown()
        assert server.server_state.tasks
        resume.set()
        status, headers, _ = await connection.response()
        assert await connection.closed_by_server()
        return status, headers.get("connection")

    assert run_with_server(create_edge(tmp_path), client) == (200, "close")
    assert recorded_states(tmp_path, "edge") == [("answered", None)]
