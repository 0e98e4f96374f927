"""Control endpoint of a relay: a minimal HTTP/1.1 server, so that a relay needs no web framework.

| request | body | effect |
|---|---|---|
| ``GET /readyz`` | | answers 200 |
| ``GET /link`` | | returns `Relay.report` |
| ``PUT /link`` | ``{"spec": "3g"}`` | changes the link, as `parse_state` reads it |
| ``PUT /overhead`` | ``{"overhead_ms": 0.1}`` | sets the relay's own delay |
| ``PUT /schedule`` | ``{}`` or ``{"text": …}`` | starts a schedule |
| ``PUT /probe`` | ``{"target": "host:port"}`` or ``{}`` | opens or closes the probe port |
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from shared.addresses import host_of, is_local
from shared.errors import DimeeError, Forbidden, InvalidInput, NotFound
from testbed.links.relay import Relay
from testbed.links.schedule import parse_schedule, parse_state
from testbed.links.settings import parse_address

MAX_BODY_BYTES = 1_000_000
TIMEOUT_S = 5.0


class ControlServer:
    """Answers one request per connection."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, as the callback of `asyncio.start_server`."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, body = await self._answer(reader)
                content = json.dumps(body).encode()
                head = (
                    f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
                )
                writer.write(head.encode() + content)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, _, rest = first.partition(" ")
        path = rest.partition(" ")[0]
        parts = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in parts}
        try:
            if not is_local(host_of(headers.get("host", "").encode("latin-1"))):
                # a page of another site can make its own name resolve to 127.0.0.1
                raise Forbidden("host: a relay is called by an IP address or a local name")
            size = int(headers.get("content-length") or 0)
            if not 0 <= size <= MAX_BODY_BYTES:
                raise InvalidInput(f"body: it is larger than {MAX_BODY_BYTES:,} bytes")
            body = json.loads(await reader.readexactly(size)) if size else {}
            if not isinstance(body, dict):
                raise InvalidInput("body: it is not a JSON object")
            return 200, await self._handle(method, path, body)
        except DimeeError as error:
            return error.status, error.payload()
        except (ValueError, TypeError, LookupError):
            return 422, InvalidInput("body: it is not valid", field="body").payload()

    async def _handle(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        relay = self._relay
        match method, path:
            case "GET", "/readyz":
                return {"status": "ready"}
            case "GET", "/link":
                return relay.report()
            case "PUT", "/link":
                relay.change(parse_state(str(body.get("spec"))))
                return relay.report()
            case "PUT", "/overhead":
                relay.set_overhead(min(max(0.0, float(body["overhead_ms"])), 1e3))
                return relay.report()
            case "PUT", "/schedule":
                text = body.get("text")
                relay.run_schedule(None if text is None else parse_schedule(str(text)))
                return relay.report()
            case "PUT", "/probe":
                if "target" not in body:
                    await relay.close_probe()
                    return {"port": None}
                return {"port": await relay.open_probe(parse_address(str(body["target"])))}
        raise NotFound("path: unknown; testbed/links/control.py lists the requests")
