"""A tier's HTTP: uvicorn's own protocol, which says no by itself while the tier is congested.

What is unusual in any way, let in after all, or not valid goes uvicorn's ordinary way, as it came.
tests/unit/test_protocol.py names what this depends on in uvicorn.
"""

from __future__ import annotations

from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.errors import DimeeError
from shared.service.refusal import Refusals, Rendered
from shared.wire import MAX_BODY_BYTES


class _Nobody:
    """In the place of the event that wakes whoever waits for a body."""

    def set(self) -> None:
        return None


class _Refusal:
    """A request that will be refused, in the place of uvicorn's cycle: that one is under way,
    so that what is pipelined behind it waits, and a shutdown does too.
    """

    __slots__ = ("_protocol", "body", "disconnected", "keep_alive", "response_complete")
    message_event: ClassVar[_Nobody] = _Nobody()

    def __init__(self, protocol: RefusingProtocol, keep_alive: bool) -> None:
        self._protocol = protocol
        self.keep_alive = keep_alive
        self.body: list[bytes] | None = []
        self.disconnected = False
        self.response_complete = False

    def tell(self, error: DimeeError) -> None:
        """Answer, unless nobody is there any more."""
        if not (self.disconnected or self._protocol.transport.is_closing()):
            self._protocol.answer(self, error)


class RefusingProtocol(HttpToolsProtocol):
    """Refuses as ``refusals`` says, with neither a scope's task nor a framework."""

    refusals: ClassVar[Refusals]
    rendered: ClassVar[Rendered]
    cycle: RequestResponseCycle | _Refusal | None  # type: ignore[assignment]

    def on_headers_complete(self) -> None:
        """Uvicorn begins a task here; for what may be refused, only the body is awaited."""
        if self.url == self.refusals.path and self.refusals.congested() and self._is_usual():
            keep_alive = self.parser.should_keep_alive()
            self.cycle = _Refusal(self, keep_alive)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        cycle = self.cycle
        if type(cycle) is _Refusal and cycle.body is not None:
            cycle.body.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is there: refuse it, or go the ordinary way from its beginning."""
        cycle = self.cycle
        if type(cycle) is not _Refusal or cycle.body is None:
            super().on_message_complete()
            return
        body = b"".join(cycle.body)
        cycle.body = None
        if self.refusals.take(body, cycle.tell):
            return
        self.cycle = None
        super().on_headers_complete()
        assert isinstance(self.cycle, RequestResponseCycle)
        self.cycle.keep_alive = cycle.keep_alive  # a shutdown may have begun meanwhile
        if body:
            super().on_body(body)
        super().on_message_complete()

    def answer(self, cycle: _Refusal, error: DimeeError) -> None:
        """Write the whole answer at once, and go on as after any other."""
        defaults = self.server_state.default_headers
        self.transport.write(self.rendered.of(error, defaults, cycle.keep_alive))
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _is_usual(self) -> bool:
        cycle, parser = self.cycle, self.parser
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"")
        if (
            parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or parser.should_upgrade()
            or len(headers) != len(self.headers)
            or headers.get(b"content-type") != b"application/json"
            or b"transfer-encoding" in headers
            or b"expect" in headers
            or not length.isdigit()
            or int(length) > MAX_BODY_BYTES
            or not (cycle is None or cycle.response_complete)
            or self.flow.write_paused
            or self.root_path
            or self.access_log
            or self.limit_concurrency is not None
        ):
            return False
        door = self.refusals.door
        if door is None:
            return True
        self.scope["method"] = "POST"
        self.scope["path"] = self.refusals.path.decode()
        return not isinstance(door.meet(self.scope), DimeeError)  # type: ignore[arg-type]


def refusing(refusals: Refusals) -> type[RefusingProtocol]:
    """The protocol of one tier, for ``uvicorn.Config(http=…)``."""
    own: dict[str, Any] = {"refusals": refusals, "rendered": Rendered()}
    return type("RefusingProtocol", (RefusingProtocol,), own)
