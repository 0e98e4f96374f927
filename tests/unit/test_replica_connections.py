"""Connections to the addresses of a name, over real sockets and TLS."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.errors import DimeeError
from shared.tier_transport import TierTransport
from shared.wire import Classification
from tests.support.answers import readiness, valid_answer
from tests.support.paths import BUNDLE, free_ports

NAME = "cloud.test"
ADDRESSES = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


def authority(tmp_path: Path) -> tuple[trustme.CA, ssl.SSLContext]:
    signer = trustme.CA()
    trusting = ssl.create_default_context()
    signer.configure_trust(trusting)
    return signer, trusting


def serving(signer: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    signer.issue_cert(name).configure_cert(context)
    return context


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        body = b"host" if b"host: cloud.test" in head.lower() else b"?"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
    finally:
        writer.close()


@pytest.mark.parametrize("certified", [NAME, "other.test"])
def test_tls_verifies_the_name_and_not_the_address(tmp_path: Path, certified: str) -> None:
    async def fetch() -> bytes:
        signer, trusting = authority(tmp_path)
        tls = serving(signer, certified)
        server = await asyncio.start_server(answer_once, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        transport = TierTransport(trusting, address="127.0.0.1")
        try:
            url = f"https://{NAME}:{port}/"
            response = await transport.handle_async_request(httpx.Request("GET", url))
            return await response.aread()
        finally:
            await transport.aclose()
            server.close()

    if certified == NAME:
        assert asyncio.run(fetch()) == b"host"
    else:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            asyncio.run(fetch())


class Replica:
    """A cloud at one address, whose answers name it; it counts its connections and requests."""

    def __init__(self, address: str) -> None:
        self.name = "cloud-" + address.rpartition(".")[2]
        self.address = address
        self.connections = self.requests = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, port)

    def kill(self) -> None:
        """Close the listening socket and all connections."""
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                writer.write(await self._answer(reader))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        finally:
            self._writers.discard(writer)

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if head.startswith(b"get"):
            content = json.dumps(readiness("cloud"))
        else:
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            attempt = json.loads(await reader.readexactly(length))["attempt_id"]
            self.requests += 1
            content = json.dumps(valid_answer(attempt, "cloud"))
        return (
            f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndimee-replica: {self.name}\r\n"
            f"content-length: {len(content)}\r\n\r\n{content}"
        ).encode()


def test_name_with_several_addresses_is_several_replicas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_ports(1)[0]
    system = socket.getaddrinfo
    present = list(ADDRESSES)

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != NAME:
            return system(host, *arguments, **options)
        kind = socket.AF_INET, socket.SOCK_STREAM, 6, ""
        return [(*kind, (address, port)) for address in present]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    settings = MobileSettings(
        bundle=BUNDLE, state_dir=tmp_path, ledger_url="off", cloud_url=f"http://{NAME}:{port}",
        edge_url="http://127.0.0.1:9",
    )  # fmt: skip

    async def ask(mobile: MobileService) -> Classification:
        (outcome,) = await mobile.classify(["fine"], options=RequestOptions(policy="cloud"))
        assert not isinstance(outcome, DimeeError), outcome
        return outcome

    async def resolved(mobile: MobileService) -> None:
        await ask(mobile)
        if mobile.replicas._task is not None:
            await mobile.replicas._task

    async def work() -> None:
        replicas = [Replica(address) for address in ADDRESSES]
        mobile = MobileService(settings)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(mobile.close, 0)
            for replica in replicas:
                await replica.start(port)
                stack.callback(replica.kill)
            await resolved(mobile)
            before = [replica.requests for replica in replicas]
            names = Counter([(await ask(mobile)).attempts[0].replica for _ in range(30)])
            assert names == {"cloud-1": 10, "cloud-2": 10, "cloud-3": 10}
            served = [one.requests - was for one, was in zip(replicas, before, strict=True)]
            assert served == [10, 10, 10]
            # each keeps its connection alive; the first was also reached by the name
            assert [replica.connections for replica in replicas[1:]] == [1, 1]
            replicas[1].kill()
            answers = [await ask(mobile) for _ in range(6)]
            assert {answer.tier.value for answer in answers} == {"cloud"}
            assert not any(answer.failed_over for answer in answers)
            assert {answer.attempts[-1].replica for answer in answers} == {"cloud-1", "cloud-3"}
            states = {one.replica: one.breaker for one in mobile.replicas.report()["cloud"]}
            assert set(states) == {"cloud-1", "cloud-2", "cloud-3"}

    asyncio.run(work())
