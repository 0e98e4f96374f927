"""Does a link keep its label? Round trips of one byte and a bulk transfer each way, through it.

Both ends of the probe are here, and all clocks are this machine's: what is measured is the link
and what the relay adds to it.
"""

from __future__ import annotations

import select
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from shared.errors import DimeeError
from shared.link_profiles import Link
from testbed.links.client import LinkControl

TOLERANCE = 0.10
ROUNDS = 4
"""How often the relay's own time is taken off before a link is called off its label."""
MOST_TRIM_MS = 1.0
"""The relay's own time on one way is less than this; more is the machine's, and is not hidden."""
ECHO_S = 1.5
SHORT_S = 0.005
FEWEST_ECHOES, MOST_ECHOES = 31, 301
BULK_S = 1.0
LEAST_BULK_BYTES, MOST_BULK_BYTES = 64 * 1024, 48 * 2**20
PATIENCE_S = 30.0
_ECHO, _SINK, _SOURCE = b"e", b"s", b"g"


class LinkOff(DimeeError):
    """A link is not what its label says."""

    status = 503
    code = "link_off"


@dataclass(frozen=True, slots=True)
class Measured:
    """A link's label and what was measured: ms and megabits a second, medians."""

    hop: str
    words: str
    label_rtt_ms: float
    rtt_ms: float
    label_up_mbps: float
    up_mbps: float
    label_down_mbps: float
    down_mbps: float
    trim_ms: float
    echoes: int

    @property
    def off(self) -> dict[str, float]:
        """By how much each is off, as a share of its label."""
        pairs = {
            "rtt_ms": (self.rtt_ms, self.label_rtt_ms),
            "up_mbps": (self.up_mbps, self.label_up_mbps),
            "down_mbps": (self.down_mbps, self.label_down_mbps),
        }
        return {what: measured / label - 1 for what, (measured, label) in pairs.items() if label}

    @property
    def holds(self) -> bool:
        """Whether everything is within `TOLERANCE` of the label."""
        return all(abs(share) <= TOLERANCE for share in self.off.values())

    def line(self) -> str:
        """One line for people."""
        off = self.off
        return (
            f"{self.hop} {self.words}: RTT {self.rtt_ms:.2f} ms ({off.get('rtt_ms', 0):+.1%}), "
            f"up {self.up_mbps:.1f} Mbit/s ({off['up_mbps']:+.1%}), "
            f"down {self.down_mbps:.1f} Mbit/s ({off['down_mbps']:+.1%})"
        )

    def refuse(self) -> None:
        """Raise `LinkOff` if it does not hold."""
        if not self.holds:
            raise LinkOff(
                f"the link {self.line()} is off its label by more than {TOLERANCE:.0%}; "
                "use a quieter machine or a slower link, or run without a label: --allow-unverified"
            )

    def as_json(self) -> dict[str, Any]:
        """Everything, with what it is off by."""
        return asdict(self) | {"off": self.off, "holds": self.holds}


def measure(control: LinkControl) -> Measured:
    """Measure one link; the relay's own time is found and taken off its delay."""
    report = control.show()
    link = Link(**report["link"])
    trim_ms = float(report["trim_ms"])
    with _target() as target:
        try:
            port = control.open_probe(target)
            up, down = (_better(port, link, way) for way in ("up", "down"))
            for attempt in range(ROUNDS):
                echoes = _echoes(port, link)
                rtt_ms = statistics.median(echoes) * 1e3
                late_ms = rtt_ms - link.round_trip_ms
                fine = abs(late_ms) <= TOLERANCE / 4 * link.round_trip_ms
                if fine or attempt == ROUNDS - 1:
                    break
                trim_ms = min(max(0.0, trim_ms + late_ms / 2), link.one_way_ms, MOST_TRIM_MS)
                control.trim(trim_ms)
        except OSError as error:
            raise LinkOff(
                f"the link {control.hop} could not be measured ({error}); is it cut?"
            ) from None
        finally:
            control.close_probe()
    return Measured(
        control.hop,
        str(report["words"]),
        link.round_trip_ms,
        round(rtt_ms, 3),
        link.up_mbps,
        round(up, 3),
        link.down_mbps,
        round(down, 3),
        round(trim_ms, 4),
        len(echoes),
    )


def _connect(port: int, what: bytes) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.sendall(what)
    return one


def _echoes(port: int, link: Link) -> list[float]:
    """Round trips in seconds. One at a time on a short link; on a long one they follow each other,

    so far apart that jitter does not press them together.
    """
    rtt_s = link.round_trip_ms / 1e3
    every_s = 0.0 if rtt_s < SHORT_S else max(rtt_s / 50, 2 * link.jitter_ms / 1e3, 0.01)
    count = int(max(FEWEST_ECHOES, min(MOST_ECHOES, ECHO_S / max(every_s or rtt_s, 1e-4))))
    sent: deque[float] = deque()
    spent: list[float] = []
    with _connect(port, _ECHO) as one:
        _echo_once(one)  # these pay for the connection
        _echo_once(one)
        next_at, made = time.perf_counter(), 0
        while len(spent) < count:
            now = time.perf_counter()
            if made < count and now >= next_at and (every_s or not sent):
                sent.append(time.perf_counter())
                one.sendall(b"x")
                made += 1
                next_at += every_s
                continue
            wait_s = PATIENCE_S if made == count or not every_s else next_at - now
            if select.select([one], [], [], wait_s)[0]:
                got = len(one.recv(64))
                arrived = time.perf_counter()
                if not got:
                    raise ConnectionError("the probe was cut off")
                spent += [arrived - sent.popleft() for _ in range(got)]
            elif wait_s == PATIENCE_S:
                raise TimeoutError("no echo came back")
    return spent


def _echo_once(one: socket.socket) -> None:
    one.sendall(b"x")
    _exactly(one, 1)


def _better(port: int, link: Link, way: str) -> float:
    """The rate in megabits a second; a second try where something else held the machine."""
    label = link.up_mbps if way == "up" else link.down_mbps
    rate = 0.0
    for _ in range(2):
        rate = _bulk(port, label, way)
        if abs(rate / label - 1) <= TOLERANCE:
            break
    return rate


def _bulk(port: int, label_mbps: float, way: str) -> float:
    size = int(min(max(label_mbps * 1e6 / 8 * BULK_S, LEAST_BULK_BYTES), MOST_BULK_BYTES))
    with _connect(port, _SINK if way == "up" else _SOURCE) as one:
        one.sendall(size.to_bytes(8, "big"))
        if way == "down":
            return _rate(one, size)
        one.sendall(bytes(size))
        return float(_exactly(one, 32).decode().strip())


def _rate(one: socket.socket, size: int) -> float:
    """Megabits a second of what comes, from the first bytes to the last."""
    buffer = bytearray(2**18)
    first = got = one.recv_into(buffer)
    started = time.perf_counter()
    while got < size:
        more = one.recv_into(buffer)
        if not more:
            raise ConnectionError("the probe was cut off")
        got += more
    return (got - first) * 8e-6 / max(time.perf_counter() - started, 1e-9)


def _exactly(one: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = one.recv(size - len(data))
        if not more:
            raise ConnectionError("the probe was cut off")
        data += more
    return data


@contextmanager
def _target() -> Iterator[str]:
    """The far end: echoes bytes, swallows a bulk and says its rate, or sends one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        ended = threading.Event()

        def accept() -> None:
            while not ended.is_set():
                try:
                    one, _ = server.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                threading.Thread(target=_far_end, args=(one,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


def _far_end(one: socket.socket) -> None:
    with one:
        one.settimeout(PATIENCE_S)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            what = _exactly(one, 1)
            if what == _ECHO:
                while data := one.recv(64):
                    one.sendall(data)
                return
            size = int.from_bytes(_exactly(one, 8), "big")
            if what == _SOURCE:
                one.sendall(bytes(min(size, MOST_BULK_BYTES)))
                one.recv(1)  # until the near end has read it all
            else:
                one.sendall(f"{_rate(one, size):32.6f}"[:32].encode())
        except OSError:
            return
