"""Chaos faults of clients that send slowly or fall silent, against a service."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shared.serving.connection import ConnectionLimits
from testbed.chaos.fault_injector import ROLES, FaultInjector
from testbed.chaos.faults import FAULTS
from testbed.chaos.faults.connections import CONNECTIONS
from testbed.load.target import LoadTarget
from tests.support.echo import Echo
from tests.support.servers import RawConnection, post, run_with_server

CASES = [(kind, spec) for kind in ("slow-heads", "half-open") for spec in FAULTS[kind].specs]


@pytest.mark.parametrize(("kind", "spec"), CASES)
def test_service_answers_during_the_fault(
    kind: str, spec: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = Echo()
    there, over = threading.Event(), threading.Event()

    def hold() -> None:
        with FAULTS[kind].hold(FaultInjector(LoadTarget("", "")), "mobile", spec):
            there.set()
            assert over.wait(60)

    async def client(server: object, port: int) -> tuple[int, int]:
        monkeypatch.setattr(FaultInjector, "url", lambda _, __: f"http://127.0.0.1:{port}")
        fault = asyncio.ensure_future(asyncio.to_thread(hold))
        await asyncio.to_thread(there.wait, 60)
        connection = await RawConnection.open(port)
        connection.send(post(b"1", path="/one"))
        status = (await connection.response())[0]
        if spec == "body":
            await echo.until(echo.arrived, CONNECTIONS + 1)
        over.set()
        await fault
        connection.close()
        if spec == "body":
            await echo.until(echo.disconnected, CONNECTIONS)
        return status, len(echo.begun)

    limits = ConnectionLimits(connections=CONNECTIONS + 1)
    assert run_with_server(echo, client, limits) == (200, 1)


@pytest.mark.parametrize(("kind", "spec"), CASES)
def test_role_that_is_down_is_no_failure_of_the_fault(
    kind: str, spec: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaultInjector, "url", lambda _, __: "http://127.0.0.1:9")
    for role in ROLES:
        with FAULTS[kind].hold(FaultInjector(LoadTarget("", "")), role, spec):
            pass
