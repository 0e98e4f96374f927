"""When bytes come out of a link, on a clock that the test holds."""

from __future__ import annotations

import math
import random

import pytest

from shared.errors import InvalidInput
from shared.link_profiles import LINKS, SOURCES, Link, parse_link
from testbed.links.schedule import parse_schedule, parse_state, read_schedule
from testbed.links.timing import LEAST_RTO_S, InOrder, TokenBucket, Way

PLAIN = Link("plain", one_way_ms=50.0, up_mbps=8.0, down_mbps=80.0)  # 1,000 bytes a ms up


def test_a_bucket_passes_at_its_rate_and_no_faster() -> None:
    bucket = TokenBucket(8.0)
    assert [bucket.passes(0.0, 1_000) for _ in range(3)] == pytest.approx([0.001, 0.002, 0.003])
    assert bucket.passes(1.0, 1_000) == pytest.approx(1.001), "a pause saves no tokens up"


def test_a_deep_bucket_lets_a_burst_pass_once() -> None:
    bucket = TokenBucket(8.0, depth=2_000)
    passed = [bucket.passes(1.0, 1_000) for _ in range(3)]
    assert passed == pytest.approx([1.0, 1.0, 1.001])


def test_no_window_gets_more_than_the_rate() -> None:
    """Whatever comes when: in no time more bytes come out than the rate allows."""
    dice = random.Random(3)
    way, now, sent = Way(PLAIN, up=True, seed=1), 0.0, []
    for _ in range(500):
        now += dice.choice((0.0, 0.0, 0.001, 0.05))
        size = dice.randint(1, way.piece_bytes)
        sent.append((way.arrives(now, size), size))
    for first in range(0, 500, 37):
        begin = sent[first][0]
        for until, _ in sent[first + 1 :]:
            inside = sum(size for at, size in sent if begin < at <= until)
            assert inside <= (until - begin) * 1e6 + 1


def test_delay_does_not_slow_the_rate() -> None:
    way = Way(PLAIN, up=True, seed=1)
    last = [way.arrives(0.0, 1_000) for _ in range(1_000)][-1]
    assert last == pytest.approx(1.0 + 0.050)
    assert Way(PLAIN, up=False, seed=1).arrives(0.0, 1_000) == pytest.approx(0.0001 + 0.050)


def test_connections_share_the_rate() -> None:
    way = Way(PLAIN, up=True, seed=1)
    one, other = InOrder(way), InOrder(way)
    assert one.arrives(0.0, 1_000) == pytest.approx(0.051)
    assert other.arrives(0.0, 1_000) == pytest.approx(0.052)


def test_jitter_keeps_order_and_its_bounds() -> None:
    link = Link("shaky", 50.0, 1e6, 1e6, jitter_ms=20.0)
    way = Way(link, up=True, seed=4)
    alone = [way.arrives(float(n), 1) - n for n in range(500)]
    assert 0.030 <= min(alone) < 0.034
    assert 0.066 < max(alone) <= 0.0701
    order = InOrder(Way(link, up=True, seed=4))
    arrivals = [order.arrives(n / 1e3, 1) for n in range(500)]
    assert arrivals == sorted(arrivals)


def test_loss_is_a_stall_of_a_timeout_and_keeps_order() -> None:
    link = Link("lossy", 50.0, 1e6, 1e6, loss=0.05)
    way = Way(link, up=True, seed=7)
    late = [way.arrives(float(n), 1_000) - n for n in range(2_000)]
    stalls = [one for one in late if one > 0.051]
    assert way.stalls == len(stalls)
    assert 0.03 < len(stalls) / len(late) < 0.07
    assert min(stalls) == pytest.approx(0.050 + LEAST_RTO_S, abs=1e-3)
    order = InOrder(Way(link, up=True, seed=7))
    arrivals = [order.arrives(n / 1e3, 1_000) for n in range(2_000)]
    assert arrivals == sorted(arrivals)


def test_the_seed_decides() -> None:
    link = Link("both", 50.0, 10.0, 10.0, jitter_ms=20.0, loss=0.05)
    runs = [
        [way.arrives(n / 10, 1_000) for n in range(200)]
        for way in (Way(link, up=True, seed=seed) for seed in (1, 1, 2))
    ]
    assert runs[0] == runs[1] != runs[2]


def test_a_connection_takes_a_round_trip_to_open() -> None:
    way = Way(PLAIN, up=True, seed=1)
    assert InOrder(way, opens=way.round_trip_s).arrives(0.0, 1_000) == pytest.approx(0.151)


def test_trim_is_taken_off_the_delay_only() -> None:
    way = Way(PLAIN, up=True, seed=1, trim_ms=1.0)
    assert way.arrives(0.0, 1_000) == pytest.approx(0.050)


def test_every_profile_has_its_sources() -> None:
    assert list(LINKS) == ["3g", "4g", "5g", "wifi", "lan", "satellite"]
    assert SOURCES.keys() == LINKS.keys()
    for link in LINKS.values():
        assert link.jitter_ms <= link.one_way_ms


def test_a_link_in_words() -> None:
    assert parse_link("4g") is LINKS["4g"]
    changed = parse_link("4g,loss=0.01,up_mbps=2")
    assert (changed.loss, changed.up_mbps, changed.down_mbps) == (0.01, 2.0, 12.0)
    for wrong in ("5", "4g,loss=2", "4g,speed=1", "4g,loss=nan", "4g,loss", "4g,up_mbps=0"):
        with pytest.raises(InvalidInput, match=r"choose one|allowed"):
            parse_link(wrong)


def test_a_schedule_over_time() -> None:
    text = "# a drive\n0 4g\n20 3g,loss=0.02  # under a bridge\n\n40 cut\n40.3 wifi\nrepeat 60\n"
    drive = parse_schedule(text)
    seen = [drive.at(t).words for t in (0, 19.9, 20, 40.1, 40.3, 59.9, 60, 81, 100.2)]
    expected = ["4g", "4g", "3g,loss=0.02", "cut", "wifi", "wifi", "4g", "3g,loss=0.02", "cut"]
    assert seen == expected
    assert drive.at(40.1).outage == "cut"
    assert [drive.next_change(t) for t in (0, 20, 40.3, 60)] == [20, 40, 60, 80]
    once = parse_schedule("0 4g\n5 wifi")
    assert (once.next_change(0), once.next_change(5), once.repeat_s) == (5, None, math.inf)


@pytest.mark.parametrize(
    "text",
    ["", "0 cut\n1 4g", "1 4g", "0 4g\n5 3g\n4 wifi", "0 4g\nx 3g", "0 4g\n5 6g", "0 4g\nrepeat 0"],
)
def test_a_wrong_schedule_says_what_is_wrong(text: str) -> None:
    with pytest.raises(InvalidInput, match="schedule: "):
        parse_schedule(text)


def test_words_or_a_file(tmp_path: object) -> None:
    assert read_schedule("4g").at(99).link is LINKS["4g"]
    assert parse_state("refuse").outage == "refuse"
    for wrong in ("cut", "@/nowhere"):
        with pytest.raises(InvalidInput):
            read_schedule(wrong)
