"""The gateway's relay of ledger entries: a browser writes its own, and no others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from mobile_client.web.app_config import LEDGER_BATCH
from shared.domain import Delivery, Reason, Side, State, Tier
from shared.ledger.server.app import MAX_ENTRIES
from tests.support.hostile_server import BEHAVIOURS, HostileServer, http, sends
from tests.support.http_server import HttpServer, in_turn, response
from tests.support.web_world import NOWHERE, RELAY, WebWorld, browsers_entry, web_world

MOBILE_SIDE: dict[str, Any] = {
    "side": Side.TIER, "tier": Tier.MOBILE, "delivery": None, "replica": None, "reason": None,
    "final": False, "exit_layer": 1,
}  # fmt: skip
OF_OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"writer": "mobile"}, "writer"),
    ({"writer": "edge"}, "writer"),
    ({"writer": ""}, "writer"),
    ({"side": Side.TIER, "delivery": None}, "side"),
    ({"side": Side.TIER, "tier": Tier.CLOUD, "delivery": None}, "side"),
    (MOBILE_SIDE | {"replica": "edge-1"}, "replica"),
    ({"reason": Reason.AUDIT}, "reason"),
    ({"reason": Reason.HEDGE}, "reason"),
    ({"reason": None}, "reason"),
    ({"certificate_id": "c"}, "certificate_id"),
    ({"degraded": False}, "certificate_id"),
]
"""Facts of an entry that a browser does not write, and the field that the error names."""


def test_browsers_entries_reach_the_ledger_once(tmp_path: Path) -> None:
    async def check() -> None:
        async with web_world(tmp_path, NOWHERE, policy="mobile") as world:
            edge = browsers_entry()
            local = browsers_entry(tier=Tier.MOBILE, replica=None, exit_layer=1)
            keys = {"request_id": local.request_id, "attempt_id": local.attempt_id}
            side = browsers_entry(**(MOBILE_SIDE | keys))
            answer = await world.deliver(edge, local, side)
            assert (answer.status_code, answer.json()["stored"]) == (200, 3), answer.text
            again = await world.deliver(edge, local, side)
            assert (again.json()["stored"], again.json()["duplicates"]) == (0, 3)
            (stored,) = await world.stored(edge.request_id)
            assert stored == edge.model_dump(mode="json")
            assert len(await world.stored(local.request_id)) == 2

    asyncio.run(check())


def test_entries_of_others_are_refused_and_nothing_of_their_batch_is_stored(
    tmp_path: Path,
) -> None:
    async def check() -> None:
        async with web_world(tmp_path, NOWHERE, policy="mobile") as world:
            own = browsers_entry()
            for facts, field in OF_OTHERS:
                answer = await world.deliver(own, browsers_entry(**facts))
                assert answer.status_code == 422, facts
                assert answer.json()["error"]["field"] == f"entries.1.{field}", facts
            assert await world.stored(own.request_id) == []

    asyncio.run(check())


def test_what_is_no_batch_is_refused(tmp_path: Path) -> None:
    async def check() -> None:
        async with web_world(tmp_path, NOWHERE, policy="mobile") as world:
            own = browsers_entry()
            row = own.model_dump(mode="json", exclude_none=True)
            for rows in ([row | {"unknown": 1}], [row | {"cost_usd": -1}], [row | {"state": "x"}]):
                assert (await world.deliver(*rows)).status_code == 422
            many = [browsers_entry() for _ in range(LEDGER_BATCH + 1)]
            assert (await world.deliver(*many)).status_code == 413
            full = await world.deliver(*many[:-1])
            assert (full.status_code, full.json()["stored"]) == (200, LEDGER_BATCH), full.text
            plain = json.dumps({"entries": [row]}).encode()
            form = await world.http.post(f"{RELAY}/ledger/v1/entries", content=plain)
            assert form.json()["error"]["field"] == "content-type"
            assert await world.stored(own.request_id) == []

    asyncio.run(check())
    assert LEDGER_BATCH < MAX_ENTRIES


def test_open_attempt_of_a_browser_is_ended_by_its_end_alone(tmp_path: Path) -> None:
    async def check() -> None:
        async with web_world(tmp_path, NOWHERE, policy="mobile") as world:
            end = browsers_entry()
            begin = end.model_copy(update={"state": State.OPEN, "delivery": None, "final": False})
            await world.deliver(begin)
            await world.deliver(end)
            other = end.model_copy(update={"delivery": Delivery.UNKNOWN})
            assert (await world.deliver(other)).json()["conflicts"] == 1
            (stored,) = await world.stored(end.request_id)
            assert (stored["state"], stored["delivery"]) == ("answered", "arrived")

    asyncio.run(check())


async def _delivered_to(tmp_path: Path, ledger_url: str) -> list[tuple[int, str]]:
    """Return status and code of three deliveries to a gateway whose ledger is at this address."""
    async with web_world(tmp_path, NOWHERE, policy="mobile", ledger_url=ledger_url) as world:
        return [await _outcome(world) for _ in range(3)]


async def _outcome(world: WebWorld) -> tuple[int, str]:
    answer = await world.deliver(browsers_entry())
    return answer.status_code, answer.json().get("error", {}).get("code", "")


def test_ledger_that_is_off_or_gone_is_unavailable(tmp_path: Path) -> None:
    for url in ("off", NOWHERE):
        outcomes = asyncio.run(_delivered_to(tmp_path, url))
        assert outcomes == [(503, "ledger_unavailable")] * 3


def test_hostile_ledger_is_unavailable(tmp_path: Path) -> None:
    for name in ("sends garbage", "sends an endless body", "redirects to itself", "answers 204"):
        with HostileServer(BEHAVIOURS[name]) as ledger:
            outcomes = asyncio.run(_delivered_to(tmp_path, ledger.url))
        assert outcomes == [(503, "ledger_unavailable")] * 3, name


def test_ledgers_refusal_is_passed_on_except_of_the_gateways_token(tmp_path: Path) -> None:
    def error(status: int, code: str) -> bytes:
        return response(status, json.dumps({"error": {"code": code, "message": "m"}}).encode())

    async def check() -> list[tuple[int, str]]:
        answers = [
            error(401, "unauthorised"), error(422, "invalid_input"), error(429, "rate_limited"),
            error(500, "internal"),
        ]  # fmt: skip
        async with (
            HttpServer(in_turn(answers)) as ledger,
            web_world(tmp_path, NOWHERE, policy="mobile", ledger_url=ledger.url) as world,
        ):
            return [await _outcome(world) for _ in answers]

    assert asyncio.run(check()) == [
        (503, "ledger_unavailable"),  # 401 would make the browser ask for another token
        (422, "invalid_input"),
        (429, "rate_limited"),
        (503, "ledger_unavailable"),
    ]


def test_what_a_ledger_sends_is_not_passed_on_unread(tmp_path: Path) -> None:
    async def check() -> None:
        leak = http(b"gateway-token", "set-cookie: a=gateway-token", "connection: close")
        with HostileServer(sends(leak)) as ledger:
            async with web_world(
                tmp_path, NOWHERE, policy="mobile", ledger_url=ledger.url, token="gateway-token"
            ) as world:
                answer = await world.deliver(browsers_entry())
        assert answer.status_code == 503
        assert "gateway-token" not in answer.text + str(answer.headers)

    asyncio.run(check())
