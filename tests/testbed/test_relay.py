"""The relay with real sockets: bytes, order, ends of streams, outages. No test measures time."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable

import httpx
import pytest

from shared.errors import InvalidInput, NotFound
from shared.link_control import LinkControl
from shared.link_profiles import Link
from testbed.links.control import ControlServer
from testbed.links.probe import LinkUnverified, Measurement
from testbed.links.relay import Relay
from testbed.links.schedule import LinkState, Schedule, parse_schedule, parse_state
from tests.support.paths import free_ports

FAST = Link("fast", one_way_ms=2.0, up_mbps=2_000.0, down_mbps=2_000.0, jitter_ms=1.0)
SOON = 20.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HOST = "127.0.0.1"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back, then end the stream."""
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass
    finally:
        writer.close()


def with_relay(
    work: Callable[[Relay, int, int], Awaitable[None]], link: Link = FAST, served: bool = True
) -> None:
    """Run ``work(relay, port, target_port)`` between an echo server and the test."""

    async def run() -> None:
        port, target = free_ports(2)
        server = await asyncio.start_server(echo, HOST, target) if served else None
        relay = Relay((HOST, port), (HOST, target), Schedule(((0.0, LinkState("fast", link)),)))
        await relay.start()
        try:
            async with asyncio.timeout(60):
                await work(relay, port, target)
        finally:
            await relay.close()
            if server is not None:
                server.close()

    asyncio.run(run())


async def connect(port: int) -> Streams:
    return await asyncio.open_connection(HOST, port)


def test_bytes_arrive_complete_and_in_order_with_both_ends() -> None:
    async def work(relay: Relay, port: int, _: int) -> None:
        async def one(seed: int) -> None:
            data = random.Random(seed).randbytes(700_000 + seed)
            reader, writer = await connect(port)

            async def send() -> None:
                writer.write(data)
                await writer.drain()
                writer.write_eof()

            sending = asyncio.create_task(send())
            assert await reader.read(-1) == data
            await sending
            writer.close()

        await asyncio.gather(*map(one, range(8)))
        for _ in range(1_000):
            if not relay.connections:
                break
            await asyncio.sleep(0.01)
        report = relay.report()
        assert report["connections"] == 8
        assert report["up_bytes"] == report["down_bytes"] == 8 * 700_000 + sum(range(8))

    with_relay(work)


def test_loss_and_jitter_leave_bytes_intact() -> None:
    async def work(relay: Relay, port: int, _: int) -> None:
        reader, writer = await connect(port)
        data = random.Random(1).randbytes(60_000)
        for start in range(0, len(data), 1_000):
            writer.write(data[start : start + 1_000])
        assert await reader.readexactly(len(data)) == data
        assert relay.report()["retransmissions"] > 0
        writer.close()

    with_relay(work, Link("lossy", 1.0, 100.0, 100.0, jitter_ms=1.0, loss=0.02))


def test_stalled_link_delivers_queued_bytes_after_it_recovers() -> None:
    async def work(relay: Relay, port: int, _: int) -> None:
        reader, writer = await connect(port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        relay.change(parse_state("stall"))
        writer.write(b"held")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        relay.change(LinkState("fast", FAST))
        assert await asyncio.wait_for(reader.readexactly(4), SOON) == b"held"
        writer.close()

    with_relay(work)


def test_reset_link_breaks_and_refuses_connections_until_it_recovers() -> None:
    async def work(relay: Relay, port: int, _: int) -> None:
        reader, writer = await connect(port)
        writer.write(b"x")
        await reader.readexactly(1)
        relay.change(parse_state("reset"))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.readexactly(1), SOON)
        with pytest.raises(OSError, match=r"refused|Connect"):
            await connect(port)
        relay.change(LinkState("fast", FAST))
        await asyncio.sleep(0.05)
        reader, writer = await connect(port)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        writer.close()

    with_relay(work)


def test_connections_are_reset_after_they_were_accepted_until_the_link_recovers() -> None:
    async def work(relay: Relay, port: int, _: int) -> None:
        reader, writer = await connect(port)
        writer.write(b"x")
        await reader.readexactly(1)
        relay.change(parse_state("reset-after-accept"))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.readexactly(1), SOON)
        for _number in range(20):
            reader, writer = await connect(port)  # accepted
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), SOON)
            writer.close()
        assert relay.report()["rejected"] == 20
        relay.change(LinkState("fast", FAST))
        reader, writer = await connect(port)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        writer.close()

    with_relay(work)


def test_callers_are_refused_while_nothing_listens_on_the_target() -> None:
    async def work(relay: Relay, port: int, target: int) -> None:
        reader, _writer = await connect(port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), SOON)
        await asyncio.sleep(0.3)
        with pytest.raises(OSError, match=r"refused|Connect"):
            await connect(port)
        server = await asyncio.start_server(echo, HOST, target)
        for _ in range(200):
            if relay.report()["listening"]:
                break
            await asyncio.sleep(0.05)
        reader, writer = await connect(port)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        writer.close()
        server.close()

    with_relay(work, served=False)


def test_full_queue_stops_the_sender() -> None:
    """The relay of a slow link stops reading instead of buffering everything."""

    async def work(relay: Relay, port: int, _: int) -> None:
        _reader, writer = await connect(port)
        writer.write(bytes(30_000_000))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.5)
        (connection,) = relay.connections
        assert connection.up.queued_bytes < 1_000_000
        writer.transport.abort()

    with_relay(work, Link("slow", 2.0, 1.0, 1.0))


def test_schedule_changes_the_link() -> None:
    async def work(relay: Relay, _port: int, _: int) -> None:
        relay.run_schedule(parse_schedule("0 4g\n0.1 stall\n0.2 wifi"))
        seen = []
        for _ in range(1_000):
            spec = relay.state.spec
            if not seen or seen[-1] != spec:
                seen.append(spec)
            if spec == "wifi":
                break
            await asyncio.sleep(0.005)
        assert seen[-3:] == ["4g", "stall", "wifi"]
        assert relay.outage is None

    with_relay(work)


def test_control_endpoint_changes_the_link() -> None:
    async def work(relay: Relay, _port: int, _: int) -> None:
        (port,) = free_ports(1)
        server = await asyncio.start_server(ControlServer(relay).serve, HOST, port)
        control = LinkControl("mobile-edge", f"http://{HOST}:{port}")

        def use_control() -> None:
            assert control.report()["spec"] == "fast"
            assert control.change("3g,loss=0.1")["link"]["loss"] == 0.1
            assert control.change("stall")["outage"] == "stall"
            assert control.change("wifi")["outage"] is None
            control.set_overhead(0.1)
            assert control.report()["overhead_ms"] == 0.1
            assert control.open_probe(f"{HOST}:1") > 0
            control.close_probe()
            with pytest.raises(InvalidInput, match="is not a link"):
                control.change("7g")
            with httpx.Client(base_url=control.url, trust_env=False) as http:
                assert http.get("/readyz").status_code == 200
                assert http.get("/").status_code == NotFound.status
                foreign = {"host": "attacker.example"}
                assert http.put("/link", json={"spec": "3g"}, headers=foreign).status_code == 403
                assert control.report()["spec"] == "wifi"
                assert http.put("/overhead", content=b"[1]").status_code == 422
                assert http.put("/overhead", json={}).status_code == 422
                assert http.put("/schedule", json={"text": "x"}).status_code == 422

        await asyncio.to_thread(use_control)
        server.close()

    with_relay(work)


def measurement(rtt_ms: float = 70.0, up: float = 10.0, down: float = 12.0) -> Measurement:
    return Measurement("mobile-edge", "4g", 70.0, rtt_ms, 10.0, up, 12.0, down, 0.0, 31)


def test_deviating_link_is_unverified() -> None:
    measurement(76.9).raise_if_unverified()
    for off in (measurement(77.1), measurement(62.9), measurement(up=8.9), measurement(down=13.3)):
        with pytest.raises(LinkUnverified, match="deviates by more than 10%") as error:
            off.raise_if_unverified()
        assert "\n" not in error.value.message
        assert json.dumps(off.as_json())
