"""A tier's HTTP: uvicorn's own protocol, which takes a usual request straight to the tier.

What is unusual in any way, or not valid, goes uvicorn's ordinary way through the framework, as it
came, and gets the same answer. tests/unit/test_protocol.py names what this depends on in uvicorn.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.errors import DimeeError
from shared.serving.lane import Lane, Rendered
from shared.wire import MAX_BODY_BYTES


class _Straight:
    """A request on its way to the tier, in the place of uvicorn's cycle: that one is under way,
    so that what is pipelined behind it waits, and a shutdown does too.
    """

    __slots__ = ("_protocol", "body", "disconnected", "keep_alive", "response_complete", "task")

    def __init__(self, protocol: LaneProtocol, keep_alive: bool) -> None:
        self._protocol = protocol
        self.keep_alive = keep_alive
        self.body: list[bytes] | None = []
        self.disconnected = False
        self.response_complete = False
        self.task: asyncio.Task[None] | None = None

    @property
    def message_event(self) -> _Straight:
        """Uvicorn's event that something came; here only that the connection is gone."""
        return self

    def set(self) -> None:
        """Who hangs up is not worked for."""
        if self.disconnected and self.task is not None:
            self.task.cancel()

    def tell(self, answer: DimeeError | bytes) -> None:
        """Answer, unless nobody is there any more."""
        if not (self.disconnected or self._protocol.transport.is_closing()):
            self._protocol.answer(self, answer)


class LaneProtocol(HttpToolsProtocol):
    """Takes requests to ``lane`` with neither a scope's task nor a framework."""

    lane: ClassVar[Lane]
    rendered: ClassVar[Rendered]
    cycle: RequestResponseCycle | _Straight | None  # type: ignore[assignment]

    def on_headers_complete(self) -> None:
        """Uvicorn begins a task here; on the lane only the body is awaited."""
        if self.url == self.lane.path and self._is_usual():
            self.cycle = _Straight(self, self.parser.should_keep_alive())
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        cycle = self.cycle
        if type(cycle) is _Straight and cycle.body is not None:
            cycle.body.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is there: take it, or go the ordinary way from its beginning."""
        cycle = self.cycle
        if type(cycle) is not _Straight or cycle.body is None:
            super().on_message_complete()
            return
        body = b"".join(cycle.body)
        cycle.body = None
        request = self.lane.read(body)
        if request is not None:
            cycle.task = self.lane.take(request, cycle.tell)
            if cycle.task is not None:  # a shutdown waits for it
                self.tasks.add(cycle.task)
                cycle.task.add_done_callback(self.tasks.discard)
            return
        self.cycle = None
        super().on_headers_complete()
        assert isinstance(self.cycle, RequestResponseCycle)
        self.cycle.keep_alive = cycle.keep_alive  # a shutdown may have begun meanwhile
        if body:
            super().on_body(body)
        super().on_message_complete()

    def answer(self, cycle: _Straight, answer: DimeeError | bytes) -> None:
        """Write the whole answer at once, and go on as after any other."""
        defaults = self.server_state.default_headers
        self.transport.write(self.rendered.of(answer, defaults, cycle.keep_alive))
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
        door = self.lane.door
        if door is None:
            return True
        self.scope["method"] = "POST"
        self.scope["path"] = self.lane.path.decode()
        return not isinstance(door.meet(self.scope), DimeeError)  # type: ignore[arg-type]


def protocol_of(lane: Lane) -> type[LaneProtocol]:
    """The protocol of one tier, for ``uvicorn.Config(http=…)``."""
    own: dict[str, Any] = {"lane": lane, "rendered": Rendered()}
    return type("LaneProtocol", (LaneProtocol,), own)
