"""Emulated links of tiers with replicas, which share the link of their hop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.errors import DimeeError
from testbed.links.hops import make_hops
from testbed.links.relay import Relay
from testbed.links.schedule import LinkState, Schedule, parse_state
from testbed.links.settings import RelaySettings
from testbed.up import PORTS, make_testbed, up
from tests.support.paths import free_ports

HOST = "127.0.0.1"


def test_relay_stands_between_the_replicas_of_both_sides(tmp_path: Path) -> None:
    options = ["mobile-cloud=4g", "edge-ledger=lan"]
    replicas = {"edge": 2, "cloud": 3}
    cloud, ledger = hops = make_hops(options, replicas=replicas)
    ports = [*cloud.ports, *ledger.ports, cloud.control_port, ledger.control_port]
    assert (len(cloud.ports), len(ledger.ports), len(set(ports))) == (3, 1, 6)
    roles = make_testbed(PORTS, tmp_path, {}, hops, replicas=replicas).roles
    relay = RelaySettings.model_validate(
        {
            name.removeprefix("DIMEE_").lower(): value
            for name, value in roles["link-mobile-cloud"].settings.items()
        }
    )
    assert relay.link_listen == ",".join(f"{HOST}:{port}" for port in cloud.ports)
    assert relay.link_target == f"{HOST}:8703,{HOST}:8803,{HOST}:8903"
    assert roles["mobile"].settings["DIMEE_CLOUD_URL"] == ",".join(
        f"http://{HOST}:{port}" for port in cloud.ports
    )
    direct = "http://127.0.0.1:8702,http://127.0.0.1:8802"
    assert roles["mobile"].settings["DIMEE_EDGE_URL"] == direct
    for edge in ("edge-1", "edge-2"):
        assert roles[edge].settings["DIMEE_LEDGER_URL"] == f"http://{HOST}:{ledger.port}"
    assert roles["cloud-1"].settings["DIMEE_LEDGER_URL"] == f"http://{HOST}:{PORTS['ledger']}"


def test_addresses_of_a_relay_must_match() -> None:
    for listen, target in (("a:1,a:2", "b:1"), ("a:1,a:2", "b:1,b:1"), ("a:1,", "b:1,")):
        with pytest.raises(ValueError, match="link"):
            RelaySettings(link_listen=listen, link_target=target)


def test_replicas_behind_a_link_fail_and_return_one_by_one() -> None:
    async def name_itself(name: bytes, port: int) -> asyncio.Server:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(name)
            await writer.drain()
            writer.close()

        return await asyncio.start_server(serve, HOST, port)

    async def asked(port: int) -> bytes:
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
            found = await reader.read(-1)
        except OSError:
            return b""
        writer.close()
        return found

    async def until(port: int, answer: bytes) -> None:
        for _ in range(6_000):
            if await asked(port) == answer:
                return
            await asyncio.sleep(0.01)

    async def run() -> None:
        *listen, first_port, second_port = free_ports(4)
        first = await name_itself(b"first", first_port)
        second = await name_itself(b"second", second_port)
        state = parse_state("lan")
        assert isinstance(state, LinkState)
        relay = Relay(
            (HOST, listen[0]),
            (HOST, first_port),
            Schedule(((0.0, state),)),
            further=[((HOST, listen[1]), (HOST, second_port))],
        )
        await relay.start()
        try:
            async with asyncio.timeout(60):
                assert [await asked(port) for port in listen] == [b"first", b"second"]
                assert relay.report()["listening"]
                second.close()
                await until(listen[1], b"")
                assert await asked(listen[0]) == b"first"
                assert relay.report()["down_bytes"] >= len(b"firstsecond")
                second = await name_itself(b"again", second_port)
                await until(listen[1], b"again")
                relay.change(parse_state("reset"))
                assert [await asked(port) for port in listen] == [b"", b""]
                relay.change(state)
                for port, answer in zip(listen, (b"first", b"again"), strict=True):
                    await until(port, answer)
        finally:
            await relay.close()
            first.close()
            second.close()

    asyncio.run(run())


def test_ports_of_replicas_must_exist(tmp_path: Path) -> None:
    options = ["--cloud-port", "65000", "--cloud-replicas", "16", "--state-dir", str(tmp_path)]
    found = CliRunner().invoke(up, options)
    assert isinstance(found.exception, DimeeError)
    assert "cloud-16 would have the port 66500" in str(found.exception)
