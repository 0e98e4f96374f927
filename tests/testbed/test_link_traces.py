"""Packet traces in Mahimahi's format: delivery times by hand, and the links that follow them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from shared.errors import InvalidInput
from shared.link_profiles import Link
from testbed.links.hops import make_hops
from testbed.links.relay import Relay
from testbed.links.schedule import parse_schedule, parse_state, read_schedule
from testbed.links.timing import LinkDirection
from testbed.links.traces import PAYLOAD_BYTES, PacketTrace, TraceBucket, read_trace
from tests.support.paths import free_ports

FULL = PAYLOAD_BYTES


def trace_of(folder: Path, *times_ms: int, name: str = "a.trace") -> PacketTrace:
    (folder / name).write_text("".join(f"{time}\n" for time in times_ms))
    return read_trace(folder / name)


def test_each_line_delivers_one_packet_and_the_trace_repeats(tmp_path: Path) -> None:
    bucket = TraceBucket(trace_of(tmp_path, 10, 10, 30, 50), started=100.0)
    times = [bucket.take(100.0, FULL) - 100 for _ in range(9)]
    expected = [0.010, 0.010, 0.030, 0.050, 0.060, 0.060, 0.080, 0.100, 0.110]
    assert times == pytest.approx(expected)


def test_small_packets_share_an_opportunity_and_large_ones_take_several(tmp_path: Path) -> None:
    bucket = TraceBucket(trace_of(tmp_path, 10, 20, 30, 40), started=0.0)
    assert bucket.take(0.0, 1_000) == pytest.approx(0.010)
    assert bucket.take(0.0, FULL - 1_000) == pytest.approx(0.010)
    assert bucket.take(0.0, 1) == pytest.approx(0.020)
    assert bucket.take(0.0, 2 * FULL) == pytest.approx(0.040), "it ends in a third opportunity"
    assert bucket.take(0.0, FULL - 1) == pytest.approx(0.040)
    assert bucket.take(0.0, 1) == pytest.approx(0.050)


def test_unused_opportunities_are_lost(tmp_path: Path) -> None:
    bucket = TraceBucket(trace_of(tmp_path, 10, 20, 30, 40), started=0.0)
    assert bucket.take(0.0, 1) == pytest.approx(0.010)
    assert bucket.take(0.025, FULL) == pytest.approx(0.030), "neither the rest of 10 ms nor 20 ms"
    assert bucket.take(0.040, FULL) == pytest.approx(0.040), "an opportunity at this very time"
    assert bucket.take(1.005, FULL) == pytest.approx(1.010)


def test_no_window_has_more_bytes_than_the_trace_allows(tmp_path: Path) -> None:
    rng = random.Random(5)
    trace = trace_of(tmp_path, *sorted(rng.randrange(1, 400) for _ in range(150)), 400)
    bucket, now, delivered = TraceBucket(trace, started=0.0), 0.0, []
    for _ in range(600):
        now += rng.choice((0.0, 0.0, 0.001, 0.03))
        size = rng.randint(1, FULL)
        at = bucket.take(now, size)
        assert at >= now
        delivered.append((at, size))
    for begin, end in ((0, 100), (50, 350), (300, 900), (0, 2_000)):
        inside = sum(size for at, size in delivered if begin / 1e3 < at <= end / 1e3 + 1e-9)
        opportunities = sum(
            begin < 400 * turn + time <= end for turn in range(6) for time in trace.times_ms
        )
        assert inside <= opportunities * FULL


def test_mean_rate_is_that_of_the_payload(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, *range(1, 1_001))
    assert trace.mean_mbps == pytest.approx(8 * FULL / 1e3)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("", "is empty"),
        ("0\n0\n", "has no line above 0 ms"),
        ("5\n4\n", "line 2 of"),
        ("1\n2.5\n", "line 2 of"),
        ("-3\n", "line 1 of"),
        ("1\n\nsoon\n", "line 3 of"),
        ("1\n" + "9" * 30 + "\n", "line 2 of"),
    ],
)
def test_wrong_line_of_a_trace_is_named(lines: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.trace").write_text(lines)
    with pytest.raises(InvalidInput, match=says):
        read_trace(tmp_path / "a.trace")


def test_link_takes_its_rates_from_traces(tmp_path: Path) -> None:
    trace_of(tmp_path, *range(2, 1_001, 2), name="up.trace")
    state = parse_state("4g,up=up.trace,loss=0.01", tmp_path)
    assert state.link is not None
    assert state.link.up_mbps == pytest.approx(8 * FULL / 2e3)
    assert (state.link.down_mbps, state.link.loss, state.link.one_way_ms) == (12, 0.01, 35)
    assert state.up_trace is not None
    assert state.down_trace is None
    (tmp_path / "schedule.txt").write_text("0 4g\n5 3g,down=up.trace\n")
    later = read_schedule(f"@{tmp_path / 'schedule.txt'}").state_at(6.0)
    assert later.down_trace == state.up_trace, "relative to the schedule's folder"
    assert later.up_trace is None


def test_running_relay_reads_no_file(tmp_path: Path) -> None:
    file = tmp_path / "up.trace"
    file.write_text("1\n")
    for parse in (parse_state, lambda spec: parse_schedule(f"0 {spec}")):
        with pytest.raises(InvalidInput, match="start the testbed with it: dimee up"):
            parse(f"4g,up={file}")


def test_missing_trace_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.trace cannot be read"):
        make_hops([f"mobile-edge=4g,up={tmp_path / 'none.trace'}"])


def test_direction_follows_its_trace_behind_the_delay(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, 10, 500)
    direction = LinkDirection(Link("plain", 50.0, 1.0, 1.0), up=True, seed=1)
    direction.change(Link("plain", 50.0, trace.mean_mbps, 1.0), trace=trace, started=2.0)
    assert direction.chunk_bytes == FULL, "one packet at a time"
    times = [direction.delivery_time(2.0, FULL) for _ in range(3)]
    assert times == pytest.approx([2.0 + 0.060, 2.0 + 0.550, 2.5 + 0.060])


def test_bytes_pass_a_relay_with_traces(tmp_path: Path) -> None:
    trace_of(tmp_path, *range(1, 21), name="up.trace")
    (tmp_path / "link.txt").write_text("0 lan,up=up.trace,down=up.trace\n")
    data = random.Random(2).randbytes(100_000)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65_536):
            writer.write(part)
        writer.close()

    async def run() -> bytes:
        port, target = free_ports(2)
        server = await asyncio.start_server(echo, "127.0.0.1", target)
        schedule = read_schedule(f"@{tmp_path / 'link.txt'}")
        relay = Relay(("127.0.0.1", port), ("127.0.0.1", target), schedule)
        await relay.start()
        relay.run_schedule()
        try:
            async with asyncio.timeout(60):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(data)
                received = await reader.readexactly(len(data))
                writer.close()
        finally:
            await relay.close()
            server.close()
        return received

    assert asyncio.run(run()) == data
