"""The gateway's relay of the app's attempts: it answers as the tier, and passes on nothing else."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from mobile_client.web.relay import MAX_CALLS
from shared.domain import Tier
from shared.errors import NotReady, RateLimited
from shared.ledger.reports import Verification
from shared.wire import InferResponse
from tests.support.answers import readiness, valid_answer
from tests.support.hostile_server import HostileServer, answers_nothing, http, sends
from tests.support.http_server import HttpServer, response
from tests.support.paths import free_ports
from tests.support.web_world import RELAY, attempt, browsers_entry, web_world

DELIVERY = "dimee-delivery"


def test_tier_answers_and_records_and_the_browsers_entry_matches_its_own(tmp_path: Path) -> None:
    async def check() -> None:
        async with web_world(tmp_path, policy="mobile") as world:
            body = attempt(text="a gripping, funny film")
            answer = await world.infer(body)
            assert answer.status_code == 200, answer.text
            facts = InferResponse.model_validate_json(answer.content)
            assert (facts.tier, facts.label) == (Tier.EDGE, "positive")
            assert facts.attempt_id == body["attempt_id"]
            assert DELIVERY not in answer.headers
            stored: list[dict[str, Any]] = []
            for _ in range(400):  # the edge delivers within a second
                stored = await world.stored(body["request_id"])
                if stored and stored[0]["state"] == "answered":
                    break
                await asyncio.sleep(0.05)
            assert [entry["side"] for entry in stored] == ["tier"]  # the gateway records nothing
            own = browsers_entry(
                request_id=body["request_id"],
                attempt_id=body["attempt_id"],
                bundle_id=body["bundle_id"],
                replica=answer.headers["dimee-replica"],
                **facts.ledger_facts(),
            )
            assert (await world.deliver(own)).json()["stored"] == 1
            report = Verification.model_validate_json(
                (await world.ledger.get("/v1/verify")).content
            )
            assert report.consistent, report.findings
            assert report.tier_rows == 1

    asyncio.run(check())


def test_readiness_has_only_what_a_client_needs(tmp_path: Path) -> None:
    async def check() -> None:
        async with web_world(tmp_path, policy="mobile") as world:
            ready = await world.http.get(f"{RELAY}/edge/readyz")
            assert (ready.status_code, ready.json()) == (200, readiness("edge"))
            gone = await world.http.get(f"{RELAY}/cloud/readyz")
            assert gone.status_code == 503
            assert gone.headers[DELIVERY] == "not_sent"

    asyncio.run(check())


WRONG: list[tuple[object, int, str]] = [
    (b"{", 422, "body"),
    ({"text": "fine"}, 422, "request_id"),
    (attempt(text=" "), 422, "texts.0"),
    (attempt(text="x" * 20_001), 413, "texts.0"),
    (attempt(pair="another"), 422, "pairs"),
    (attempt(url="http://127.0.0.1/"), 422, "url"),
    (attempt(deadline_ms=60_001), 422, "deadline_ms"),
]
"""Body, status of the answer and its field."""


def test_wrong_attempt_is_refused_and_not_sent(tmp_path: Path) -> None:
    async def check() -> None:
        async with (
            HttpServer(lambda _: _never()) as edge,
            web_world(tmp_path, edge.url, policy="mobile") as world,
        ):
            for body, status, field in WRONG:
                answer = await world.infer(body)
                assert answer.status_code == status, answer.text
                assert answer.json()["error"]["field"] == field
                assert answer.headers[DELIVERY] == "not_sent"
            plain = await world.infer(attempt(), **{"content-type": "text/plain"})
            assert plain.status_code == 422
            assert plain.json()["error"]["field"] == "content-type"
            assert [body for body in edge.bodies if body] == []

    asyncio.run(check())


async def _never() -> bytes:
    raise AssertionError("nothing is sent")


def test_no_other_path_of_a_tier_or_the_ledger_is_reached(tmp_path: Path) -> None:
    async def check() -> None:
        async with web_world(tmp_path, policy="mobile") as world:
            for path in (
                "edge/v1/resume", "edge/metrics", "edge/docs", "edge/../v1/infer",
                "mobile/v1/infer",
                "ledger/v1/infer", "edge/v1/entries", "ledger/v1/summary", "ledger/v1/requests/r1",
                "ledger/v1/verify", "127.0.0.1:9/v1/infer", "",
            ):  # fmt: skip
                got = await world.http.get(f"{RELAY}/{path}")
                posted = await world.http.post(f"{RELAY}/{path}", json=attempt())
                assert got.status_code in (404, 405), path
                assert posted.status_code in (404, 405), path

    asyncio.run(check())


def test_gateways_token_is_not_answered_and_the_browsers_not_passed_on(tmp_path: Path) -> None:
    """A tier that sends back what it gets sees the gateway's token, and the browser does not."""
    heads: list[bytes] = []

    def edge_of(status: bytes, code: bytes) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"POST" in head:
                heads.append(head)
            body = b'{"error":{"code":"%b","message":"no %b"}}' % (code, b"token of the gateway")
            start = (
                b"HTTP/1.1 %b X\r\nset-cookie: a=b\r\nx-secret: tok\r\ncontent-length: %d\r\n\r\n"
            )
            writer.write(start % (status, len(body)) + body)
            writer.close()

        return serve

    async def check() -> None:
        server = await asyncio.start_server(edge_of(b"401", b"unauthorised"), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with web_world(tmp_path, url, policy="mobile", token="gateway-token") as world:
            answer = await world.infer(
                attempt(), authorization="Bearer browser-token", cookie="c=d"
            )
            # 401 would say that the browser's token is wrong
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "not_admitted"
            assert answer.headers[DELIVERY] == "unknown"
            assert not {"set-cookie", "x-secret", "www-authenticate"} & set(answer.headers)
            assert "gateway-token" not in str(answer.headers) + answer.text
        server.close()
        assert len(heads) == 1
        assert b"authorization: Bearer gateway-token" in heads[0]
        assert b"browser-token" not in heads[0]
        assert b"cookie" not in heads[0]

    asyncio.run(check())


def test_deadline_bounds_the_wait(tmp_path: Path) -> None:
    async def check() -> None:
        with HostileServer(answers_nothing) as edge:
            async with web_world(tmp_path, edge.url, policy="mobile") as world:
                late = await world.infer(attempt(deadline_ms=100.0))
                assert late.status_code == 504
                assert late.json()["error"]["code"] == "deadline_exceeded"
                assert late.headers[DELIVERY] == "unknown"

    asyncio.run(check())


def test_calls_in_flight_are_limited(tmp_path: Path) -> None:
    async def check() -> None:
        async with (
            HttpServer(_no_answer) as edge,
            web_world(tmp_path, edge.url, policy="mobile", probe_interval_s=60) as world,
        ):
            body = attempt(deadline_ms=20_000.0)
            waiting = [asyncio.create_task(world.infer(body)) for _ in range(MAX_CALLS)]
            await edge.wait_for(MAX_CALLS)
            refused = await world.infer(attempt())
            assert (refused.status_code, refused.headers[DELIVERY]) == (429, "not_sent")
            assert refused.headers["retry-after"] == "1"
            for task in waiting:  # a browser that goes away frees its place
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            for _ in range(500):
                again = await world.infer(attempt(deadline_ms=1.0))
                if again.status_code != 429:
                    break
                await asyncio.sleep(0.01)
            assert again.status_code == 504

    asyncio.run(check())


async def _no_answer(_: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


@pytest.mark.parametrize(
    ("status", "error", "delivery"),
    [
        (429, RateLimited("wait", retry_after_s=2.0), "unknown"),
        (503, NotReady("the edge is not ready"), "unknown"),
    ],
)
def test_tiers_error_is_passed_on(
    tmp_path: Path, status: int, error: RateLimited | NotReady, delivery: str
) -> None:
    async def check() -> None:
        body = json.dumps(error.payload()).encode()
        behave = sends(http(body, "connection: close", status=f"{status} X"))
        with HostileServer(behave) as edge:
            async with web_world(tmp_path, edge.url, policy="mobile") as world:
                answer = await world.infer(attempt())
        assert (answer.status_code, answer.json()) == (status, error.payload())
        assert answer.headers[DELIVERY] == delivery
        assert answer.headers.get("retry-after") == ("2" if status == 429 else None)

    asyncio.run(check())


def test_answer_that_is_none_of_the_tiers_is_an_error(tmp_path: Path) -> None:
    changes = [{"tier": "cloud"}, {"bundle_id": "other"}]  # a third would open the breaker

    async def check() -> None:
        left = list(changes)

        async def respond(body: bytes) -> bytes:
            own = json.loads(body)["attempt_id"]
            return response(200, json.dumps(valid_answer(own) | left.pop(0)).encode())

        async with (
            HttpServer(respond) as edge,
            web_world(tmp_path, edge.url, policy="mobile", probe_interval_s=60) as world,
        ):
            for change in changes:
                answer = await world.infer(attempt())
                assert answer.status_code == 500, change
                assert answer.json()["error"]["code"] == "tier_failed"
                assert answer.headers[DELIVERY] == "unknown"

    asyncio.run(check())


def test_replica_that_cannot_be_connected_to_is_replaced_by_another(tmp_path: Path) -> None:
    async def check() -> None:
        async def respond(body: bytes) -> bytes:
            identifier = json.loads(body)["attempt_id"]
            return response(200, json.dumps(valid_answer(identifier)).encode())

        gone = f"http://127.0.0.1:{free_ports(1)[0]}"
        async with (
            HttpServer(respond) as edge,
            web_world(tmp_path, f"{gone},{edge.url}", policy="mobile") as world,
        ):
            for _ in range(4):
                answer = await world.infer(attempt())
                assert answer.status_code == 200, answer.text

    asyncio.run(check())


def test_attempt_on_an_idle_connection_that_broke_is_sent_again(tmp_path: Path) -> None:
    def behave(connection: socket.socket, body: bytes, number: int) -> None:
        if not body:  # a probe
            connection.sendall(http(json.dumps(readiness()).encode()))
        elif number in broken:
            connection.close()
        else:
            broken.add(number)
            own = json.loads(body)["attempt_id"]
            connection.sendall(http(json.dumps(valid_answer(own)).encode()))

    broken: set[int] = set()

    async def check() -> None:
        with HostileServer(behave) as edge:
            async with web_world(tmp_path, edge.url, policy="mobile") as world:
                for _ in range(3):
                    answer = await world.infer(attempt())
                    assert answer.status_code == 200, answer.text
        assert len(broken) == 3

    asyncio.run(check())
