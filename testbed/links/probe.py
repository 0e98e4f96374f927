"""Verification of an emulated link: round trips of one byte, and a bulk transfer each way.

Both ends of the probe are in this process, so that one clock measures everything: the link, and
what the relay adds to it.
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
from shared.link_control import LinkControl
from shared.link_profiles import Link

TOLERANCE = 0.10
MAX_ROUNDS = 4
"""Largest number of round-trip measurements. After each but the last, the relay's own delay is
estimated and subtracted."""
MAX_OVERHEAD_MS = 1.0
"""Upper bound of the relay's own delay; a larger one is caused by the machine and is not hidden."""
ECHO_S = 1.5
SHORT_S = 0.005
MIN_ECHOES, MAX_ECHOES = 31, 301
BULK_S = 1.0
MIN_BULK_BYTES, MAX_BULK_BYTES = 64 * 1024, 48 * 2**20
TIMEOUT_S = 30.0
_ECHO, _SINK, _SOURCE = b"e", b"s", b"g"


class LinkUnverified(DimeeError):
    """A link differs from its specification by more than `TOLERANCE`, or cannot be measured."""

    status = 503
    code = "link_unverified"


@dataclass(frozen=True, slots=True)
class Measurement:
    """A link's nominal and measured round trip (ms) and rates (Mbit/s), as medians."""

    hop: str
    spec: str
    nominal_rtt_ms: float
    rtt_ms: float
    nominal_up_mbps: float
    up_mbps: float
    nominal_down_mbps: float
    down_mbps: float
    overhead_ms: float
    echoes: int

    @property
    def deviation(self) -> dict[str, float]:
        """Relative difference of each measured value from its nominal one."""
        pairs = {
            "rtt_ms": (self.rtt_ms, self.nominal_rtt_ms),
            "up_mbps": (self.up_mbps, self.nominal_up_mbps),
            "down_mbps": (self.down_mbps, self.nominal_down_mbps),
        }
        return {
            name: measured / nominal - 1 for name, (measured, nominal) in pairs.items() if nominal
        }

    @property
    def verified(self) -> bool:
        """True if every deviation is within `TOLERANCE`."""
        return all(abs(share) <= TOLERANCE for share in self.deviation.values())

    def raise_if_unverified(self) -> None:
        """Raise `LinkUnverified` if a deviation exceeds `TOLERANCE`."""
        if not self.verified:
            raise LinkUnverified(
                f"the link {describe(self.as_json())} deviates by more than {TOLERANCE:.0%}; "
                "use a quieter machine or a slower link, or accept it with --allow-unverified"
            )

    def as_json(self) -> dict[str, Any]:
        """Return all values, the deviations and the verdict."""
        return asdict(self) | {"deviation": self.deviation, "verified": self.verified}


def describe(measurement: dict[str, Any]) -> str:
    """Return a measurement (`Measurement.as_json`) as one line of text."""
    deviation = measurement["deviation"]
    return (
        f"{measurement['hop']} {measurement['spec']}: "
        f"RTT {measurement['rtt_ms']:.2f} ms ({deviation.get('rtt_ms', 0):+.1%}), "
        f"up {measurement['up_mbps']:.1f} Mbit/s ({deviation['up_mbps']:+.1%}), "
        f"down {measurement['down_mbps']:.1f} Mbit/s ({deviation['down_mbps']:+.1%})"
    )


def measure(control: LinkControl) -> Measurement:
    """Measure a link, and set the relay's own delay so that it is subtracted."""
    report = control.report()
    link = Link(**report["link"])
    overhead_ms = float(report["overhead_ms"])
    with probe_target() as target:
        try:
            port = control.open_probe(target)
            up, down = (measure_rate(port, link, direction) for direction in ("up", "down"))
            for attempt in range(MAX_ROUNDS):
                echoes = measure_round_trips(port, link)
                rtt_ms = statistics.median(echoes) * 1e3
                excess_ms = rtt_ms - link.round_trip_ms
                close_enough = abs(excess_ms) <= TOLERANCE / 4 * link.round_trip_ms
                if close_enough or attempt == MAX_ROUNDS - 1:
                    break
                estimate_ms = max(0.0, overhead_ms + excess_ms / 2)
                overhead_ms = min(estimate_ms, link.one_way_ms, MAX_OVERHEAD_MS)
                control.set_overhead(overhead_ms)
        except OSError as error:
            raise LinkUnverified(
                f"the link {control.hop} could not be measured ({error}); "
                "does it have an outage? see: dimee link show"
            ) from None
        finally:
            control.close_probe()
    return Measurement(
        control.hop,
        str(report["spec"]),
        link.round_trip_ms,
        round(rtt_ms, 3),
        link.up_mbps,
        round(up, 3),
        link.down_mbps,
        round(down, 3),
        round(overhead_ms, 4),
        len(echoes),
    )


def _connect(port: int, kind: bytes, source: str = "127.0.0.1") -> socket.socket:
    address = ("127.0.0.1", port)
    sock = socket.create_connection(address, timeout=TIMEOUT_S, source_address=(source, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(kind)
    return sock


def measure_round_trips(port: int, link: Link, source: str = "127.0.0.1") -> list[float]:
    """Return round trips in seconds through a port, over a connection from ``source``.

    On a short link one byte is on its way at a time. On a long one several are, far enough apart
    that jitter does not make them arrive together.
    """
    rtt_s = link.round_trip_ms / 1e3
    every_s = 0.0 if rtt_s < SHORT_S else max(rtt_s / 50, 2 * link.jitter_ms / 1e3, 0.01)
    count = int(max(MIN_ECHOES, min(MAX_ECHOES, ECHO_S / max(every_s or rtt_s, 1e-4))))
    sent: deque[float] = deque()
    round_trips_s: list[float] = []
    with _connect(port, _ECHO, source) as sock:
        _echo_once(sock)  # The first echoes include the set-up of the connection.
        _echo_once(sock)
        next_at, sent_count = time.perf_counter(), 0
        while len(round_trips_s) < count:
            now = time.perf_counter()
            if sent_count < count and now >= next_at and (every_s or not sent):
                sent.append(time.perf_counter())
                sock.sendall(b"x")
                sent_count += 1
                next_at += every_s
                continue
            wait_s = TIMEOUT_S if sent_count == count or not every_s else next_at - now
            if select.select([sock], [], [], wait_s)[0]:
                received = len(sock.recv(64))
                arrived = time.perf_counter()
                if not received:
                    raise ConnectionError("the probe's connection was closed")
                round_trips_s += [arrived - sent.popleft() for _ in range(received)]
            elif wait_s == TIMEOUT_S:
                raise TimeoutError("no echo came back")
    return round_trips_s


def _echo_once(sock: socket.socket) -> None:
    sock.sendall(b"x")
    _receive_exactly(sock, 1)


def measure_rate(port: int, link: Link, direction: str, source: str = "127.0.0.1") -> float:
    """Return the rate in Mbit/s; one that is not within the tolerance is measured a second time."""
    nominal = link.up_mbps if direction == "up" else link.down_mbps
    rate = 0.0
    for _ in range(2):
        rate = _transfer(port, nominal, direction, source)
        if abs(rate / nominal - 1) <= TOLERANCE:
            break
    return rate


def _transfer(port: int, nominal_mbps: float, direction: str, source: str) -> float:
    size = int(min(max(nominal_mbps * 1e6 / 8 * BULK_S, MIN_BULK_BYTES), MAX_BULK_BYTES))
    with _connect(port, _SINK if direction == "up" else _SOURCE, source) as sock:
        sock.sendall(size.to_bytes(8, "big"))
        if direction == "down":
            return _receive_rate(sock, size)
        sock.sendall(bytes(size))
        return float(_receive_exactly(sock, 32).decode().strip())


def _receive_rate(sock: socket.socket, size: int) -> float:
    """Receive ``size`` bytes and return their rate in Mbit/s, from the first bytes to the last."""
    buffer = bytearray(2**18)
    first = received = sock.recv_into(buffer)
    started = time.perf_counter()
    while received < size:
        more = sock.recv_into(buffer)
        if not more:
            raise ConnectionError("the probe's connection was closed")
        received += more
    return (received - first) * 8e-6 / max(time.perf_counter() - started, 1e-9)


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionError("the probe's connection was closed")
        data += more
    return data


@contextmanager
def probe_target() -> Iterator[str]:
    """Listen as the far end of the probe and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        ended = threading.Event()

        def accept() -> None:
            while not ended.is_set():
                try:
                    sock, _ = server.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                threading.Thread(target=_serve_probe, args=(sock,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


def _serve_probe(sock: socket.socket) -> None:
    """Echo bytes, receive a bulk transfer and report its rate, or send one."""
    with sock:
        sock.settimeout(TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            kind = _receive_exactly(sock, 1)
            if kind == _ECHO:
                while data := sock.recv(64):
                    sock.sendall(data)
                return
            size = int.from_bytes(_receive_exactly(sock, 8), "big")
            if kind == _SOURCE:
                sock.sendall(bytes(min(size, MAX_BULK_BYTES)))
                sock.recv(1)  # returns when the near end has read everything and closes
            else:
                sock.sendall(f"{_receive_rate(sock, size):32.6f}"[:32].encode())
        except OSError:
            return
