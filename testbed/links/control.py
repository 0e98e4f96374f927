"""The relay's control: a few lines of HTTP/1.1, so that a device needs no web framework for it.

``GET /readyz``, ``GET /link``; ``PUT /link`` with ``{"words": "3g"}`` (as the schedule's),
``PUT /trim`` with ``{"trim_ms": 0.1}``, ``PUT /schedule`` with ``{}`` or ``{"text": …}``,
``PUT /probe`` with ``{"target": "host:port"}`` or ``{}``.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from shared.errors import DimeeError, InvalidInput, NotFound
from testbed.links.relay import Relay
from testbed.links.schedule import parse_schedule, parse_state
from testbed.links.settings import address

MOST_BODY_BYTES = 1_000_000
SLOWEST_S = 5.0


class Control:
    """Answers one request a connection."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The callback of `asyncio.start_server`."""
        try:
            async with asyncio.timeout(SLOWEST_S):
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
        fields = {name.lower(): value.strip() for name, _, value in parts}
        try:
            size = int(fields.get("content-length") or 0)
            if not 0 <= size <= MOST_BODY_BYTES:
                raise InvalidInput("body: is larger than a schedule may be")
            body = json.loads(await reader.readexactly(size)) if size else {}
            if not isinstance(body, dict):
                raise InvalidInput("body: is no JSON object")
            return 200, await self._do(method, path, body)
        except DimeeError as error:
            return error.status, error.payload()
        except (ValueError, TypeError, LookupError):
            return 422, InvalidInput("body: is not valid", field="body").payload()

    async def _do(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        relay = self._relay
        match method, path:
            case "GET", "/readyz":
                return {"status": "ready"}
            case "GET", "/link":
                return relay.report()
            case "PUT", "/link":
                relay.change(parse_state(str(body.get("words"))))
                return relay.report()
            case "PUT", "/trim":
                relay.trim(min(max(0.0, float(body["trim_ms"])), 1e3))
                return relay.report()
            case "PUT", "/schedule":
                text = body.get("text")
                relay.run_schedule(None if text is None else parse_schedule(str(text)))
                return relay.report()
            case "PUT", "/probe":
                if "target" not in body:
                    await relay.close_probe()
                    return {"port": None}
                return {"port": await relay.open_probe(address(str(body["target"])))}
        raise NotFound("path: there is nothing here; see testbed/links/control.py")
