"""Delivery times of an emulated link, with times that the test passes."""

from __future__ import annotations

import math
import random

import pytest

from shared.errors import InvalidInput
from shared.link_profiles import LINKS, SOURCES, Link, parse_link
from testbed.links.schedule import parse_schedule, parse_state, read_schedule
from testbed.links.timing import MIN_RTO_S, InOrderDelivery, LinkDirection, TokenBucket

PLAIN = Link("plain", one_way_ms=50.0, up_mbps=8.0, down_mbps=80.0)  # 1,000 bytes a ms up


def test_bucket_passes_bytes_at_its_rate() -> None:
    bucket = TokenBucket(8.0)
    assert [bucket.take(0.0, 1_000) for _ in range(3)] == pytest.approx([0.001, 0.002, 0.003])
    assert bucket.take(1.0, 1_000) == pytest.approx(1.001), "a pause accumulates no tokens"


def test_deep_bucket_passes_one_burst() -> None:
    bucket = TokenBucket(8.0, depth=2_000)
    passed = [bucket.take(1.0, 1_000) for _ in range(3)]
    assert passed == pytest.approx([1.0, 1.0, 1.001])


def test_rate_holds_in_every_time_window() -> None:
    """In no window are more bytes delivered than the rate allows, for any arrivals."""
    rng = random.Random(3)
    direction, now, sent = LinkDirection(PLAIN, up=True, seed=1), 0.0, []
    for _ in range(500):
        now += rng.choice((0.0, 0.0, 0.001, 0.05))
        size = rng.randint(1, direction.chunk_bytes)
        sent.append((direction.delivery_time(now, size), size))
    for first in range(0, 500, 37):
        begin = sent[first][0]
        for until, _ in sent[first + 1 :]:
            inside = sum(size for at, size in sent if begin < at <= until)
            assert inside <= (until - begin) * 1e6 + 1


def test_delay_does_not_slow_the_rate() -> None:
    direction = LinkDirection(PLAIN, up=True, seed=1)
    last = [direction.delivery_time(0.0, 1_000) for _ in range(1_000)][-1]
    assert last == pytest.approx(1.0 + 0.050)
    assert LinkDirection(PLAIN, up=False, seed=1).delivery_time(0.0, 1_000) == pytest.approx(
        0.0001 + 0.050
    )


def test_connections_share_the_rate() -> None:
    direction = LinkDirection(PLAIN, up=True, seed=1)
    one, other = InOrderDelivery(direction), InOrderDelivery(direction)
    assert one.delivery_time(0.0, 1_000) == pytest.approx(0.051)
    assert other.delivery_time(0.0, 1_000) == pytest.approx(0.052)


def test_jitter_stays_in_its_bounds_and_keeps_order() -> None:
    link = Link("shaky", 50.0, 1e6, 1e6, jitter_ms=20.0)
    direction = LinkDirection(link, up=True, seed=4)
    alone = [direction.delivery_time(float(n), 1) - n for n in range(500)]
    assert 0.030 <= min(alone) < 0.034
    assert 0.066 < max(alone) <= 0.0701
    order = InOrderDelivery(LinkDirection(link, up=True, seed=4))
    arrivals = [order.delivery_time(n / 1e3, 1) for n in range(500)]
    assert arrivals == sorted(arrivals)


def test_loss_delays_by_a_retransmission_timeout_and_keeps_order() -> None:
    link = Link("lossy", 50.0, 1e6, 1e6, loss=0.05)
    direction = LinkDirection(link, up=True, seed=7)
    late = [direction.delivery_time(float(n), 1_000) - n for n in range(2_000)]
    delayed = [one for one in late if one > 0.051]
    assert direction.retransmissions == len(delayed)
    assert 0.03 < len(delayed) / len(late) < 0.07
    assert min(delayed) == pytest.approx(0.050 + MIN_RTO_S, abs=1e-3)
    order = InOrderDelivery(LinkDirection(link, up=True, seed=7))
    arrivals = [order.delivery_time(n / 1e3, 1_000) for n in range(2_000)]
    assert arrivals == sorted(arrivals)


def test_same_seed_gives_same_times() -> None:
    link = Link("both", 50.0, 10.0, 10.0, jitter_ms=20.0, loss=0.05)
    runs = [
        [direction.delivery_time(n / 10, 1_000) for n in range(200)]
        for direction in (LinkDirection(link, up=True, seed=seed) for seed in (1, 1, 2))
    ]
    assert runs[0] == runs[1] != runs[2]


def test_connection_takes_a_round_trip_to_open() -> None:
    direction = LinkDirection(PLAIN, up=True, seed=1)
    assert InOrderDelivery(direction, opens_at=direction.round_trip_s).delivery_time(
        0.0, 1_000
    ) == pytest.approx(0.151)


def test_overhead_is_subtracted_from_the_delay() -> None:
    direction = LinkDirection(PLAIN, up=True, seed=1, overhead_ms=1.0)
    assert direction.delivery_time(0.0, 1_000) == pytest.approx(0.050)


def test_every_profile_has_a_source() -> None:
    assert list(LINKS) == ["3g", "4g", "5g", "wifi", "lan", "satellite"]
    assert SOURCES.keys() == LINKS.keys()
    for link in LINKS.values():
        assert link.jitter_ms <= link.one_way_ms


def test_link_specification_is_parsed() -> None:
    assert parse_link("4g") is LINKS["4g"]
    changed = parse_link("4g,loss=0.01,up_mbps=2")
    assert (changed.loss, changed.up_mbps, changed.down_mbps) == (0.01, 2.0, 12.0)
    for wrong in ("5", "4g,loss=2", "4g,speed=1", "4g,loss=nan", "4g,loss", "4g,up_mbps=0"):
        with pytest.raises(InvalidInput, match=r"choose one|allowed"):
            parse_link(wrong)


def test_schedule_gives_the_state_at_each_time() -> None:
    text = "# a drive\n0 4g\n20 3g,loss=0.02  # under a bridge\n\n40 stall\n40.3 wifi\nrepeat 60\n"
    drive = parse_schedule(text)
    seen = [drive.state_at(t).spec for t in (0, 19.9, 20, 40.1, 40.3, 59.9, 60, 81, 100.2)]
    expected = ["4g", "4g", "3g,loss=0.02", "stall", "wifi", "wifi", "4g", "3g,loss=0.02", "stall"]
    assert seen == expected
    assert drive.state_at(40.1).outage == "stall"
    assert [drive.next_change(t) for t in (0, 20, 40.3, 60)] == [20, 40, 60, 80]
    once = parse_schedule("0 4g\n5 wifi")
    assert (once.next_change(0), once.next_change(5), once.repeat_s) == (5, None, math.inf)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 stall\n1 4g",
        "1 4g",
        "0 4g\n5 3g\n4 wifi",
        "0 4g\nx 3g",
        "0 4g\n5 6g",
        "0 4g\nrepeat 0",
    ],
)
def test_invalid_schedule_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="schedule: "):
        parse_schedule(text)


def test_schedule_is_a_specification_or_a_file() -> None:
    assert read_schedule("4g").state_at(99).link is LINKS["4g"]
    assert parse_state("reset").outage == "reset"
    for wrong in ("stall", "@/nowhere"):
        with pytest.raises(InvalidInput):
            read_schedule(wrong)
