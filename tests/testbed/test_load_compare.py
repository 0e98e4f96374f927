"""Comparison of two load reports: its verdict, its figures and its page."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shared.errors import InvalidInput
from shared.wire import ClassifyResponse
from testbed.load.cli import load
from testbed.load.compare import Row, compare, lines
from testbed.load.compare_page import compare_page
from testbed.load.report import WORST, describe_worst, make_report
from testbed.load.sample import Sample

EVIL = "<script>alert('x')</script>&\"\x1b[31m"
MACHINE = {"cpu": "a CPU", "cores": 2, "load_before": 0.5, "system": "Linux", "python": "3.11"}
LINK = {"hop": "mobile-edge", "spec": "4g", "rtt_ms": 70.7}
FACTS: dict[str, Any] = {
    "scenario": "steady", "scenario_title": "constant rate", "path": "policy",
    "policy": "cascade-routing", "rate": 20.0, "warm_up_requests": 2, "duration_s": 4.0,
    "deadline_ms": 1_000.0, "seed": 1, "trace": None, "price_book": None, "bundle_id": "b" * 16,
    "links": [LINK], "made_at": "2026-11-23T00:00:00Z", "commit": "abc", "command": "dimee load",
    "machine": MACHINE, "partial": None, "texts_sha256": "d" * 64,
}  # fmt: skip


def answered(number: int, latency_ms: float, cost_lambda: float) -> Sample:
    result = {
        "request_id": f"r{number}", "label": "positive", "probabilities": {"positive": 1.0},
        "confidence": 1.0, "tier": "mobile", "exit_layer": 1, "policy": "cascade-routing",
        "tokens": 5, "decision_ms": 0.5, "total_ms": latency_ms - 1, "bundle_id": "b" * 16,
        "attempts": [],
        "cost": {"cost_lambda": cost_lambda, "all_cloud_lambda": 12.0, "cost_usd": 1e-6,
                 "energy_mj": 1.0, "price_book": "p"},
    }  # fmt: skip
    one = Sample(number, number / 10, late_ms=0.5, latency_ms=latency_ms)
    made = ClassifyResponse.model_validate({"items": [{"result": result}]})
    one.read_response(200, made.model_dump_json().encode())
    return one


def shed(number: int, latency_ms: float) -> Sample:
    one = Sample(number, number / 10, latency_ms=latency_ms)
    one.read_response(429, b'{"error": {"code": "overloaded", "request_id": "r-shed"}}')
    return one


def written(file: Path, samples: list[Sample], **facts: Any) -> Path:
    report = make_report(FACTS | facts, samples, [], 4.0, 1_000.0)
    file.write_text(json.dumps(report), encoding="utf-8")
    return file


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    return written(tmp_path / "fast.json", [answered(i, 10.0, 3.0) for i in range(40)])


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    samples = [*(answered(i, 20.0, 3.0) for i in range(30)), *(shed(i, 1) for i in range(30, 40))]
    facts = {"policy": "dimee-fixed", "commit": "def"}
    return written(tmp_path / "slow.json", samples, **facts)


def test_runs_under_the_same_conditions_are_comparable(fast: Path, slow: Path) -> None:
    found = compare(fast, slow)
    assert found.names == ("fast", "slow")
    assert found.differences == []
    assert found.verdict.startswith("comparable: same scenario, rate, deadline, seed, texts")
    assert found.compared == [
        "the policy differs (cascade-routing and dimee-fixed)",
        "the commit differs (abc and def)",
    ]
    rows = {row.name: row.cells()[1:] for row in found.rows}
    assert rows["answered"] == ("100.00%", "75.00%", "-25.00 points")
    assert rows["latency p50"] == ("10.00 ms", "20.00 ms", "+100.0%")
    assert rows["cost of an answer"] == ("3.00 λ", "3.00 λ", "same")
    assert rows["shed"] == ("0", "10", "–")
    assert rows["accuracy"] == ("–", "–", "–")
    assert rows["requests"] == ("40", "40", "same")


@pytest.mark.parametrize("option", ["--rate=5", "--allow-unverified", "--duration=60"])
def test_options_of_a_run_are_refused(fast: Path, slow: Path, option: str) -> None:
    done = CliRunner().invoke(load, ["--compare", str(fast), str(slow), option])
    assert isinstance(done.exception, InvalidInput)
    name = option.partition("=")[0]
    assert done.exception.message.startswith(f"{name}: --compare sends no requests")


@pytest.mark.parametrize(
    ("facts", "difference"),
    [
        ({"texts_sha256": "e" * 64}, f"the texts differ ({'d' * 16} and {'e' * 16})"),
        ({"seed": 2}, "the seed differs (1 and 2)"),
        ({"bundle_id": "c"}, f"the bundle differs ({'b' * 16} and c)"),
        ({"links": []}, "the links differ (mobile-edge=4g and none)"),
        ({"scenario": "burst"}, "the scenario differs (steady (constant rate) and burst"),
        ({"rate": 40.0}, "the rate differs (20/s and 40/s)"),
        ({"deadline_ms": 500.0}, "the deadline differs (1000 ms and 500 ms)"),
        ({"machine": MACHINE | {"cores": 8}}, "the machine differs (a CPU, 2 cores"),
        ({"partial": {"signal": "SIGINT"}}, "the second run was ended early"),
    ],
)
def test_other_conditions_make_runs_not_comparable(
    fast: Path, tmp_path: Path, facts: dict[str, Any], difference: str
) -> None:
    other = written(tmp_path / "other.json", [answered(0, 10.0, 3.0)], **facts)
    found = compare(fast, other)
    assert found.verdict.startswith("not comparable: ")
    (only,) = found.differences
    assert only.startswith(difference)


def test_load_average_and_order_of_links_do_not_count(fast: Path, tmp_path: Path) -> None:
    links = [LINK, LINK | {"hop": "mobile-cloud"}]
    busy = {"machine": MACHINE | {"load_before": 9.0}}
    first = written(tmp_path / "one.json", [answered(0, 10.0, 3.0)], links=links)
    second = written(tmp_path / "two.json", [answered(0, 1, 3.0)], links=links[::-1], **busy)
    found = compare(first, second)
    assert found.differences == []
    assert found.compared == ["the load average before differs (0.5 and 9.0)"]


def test_runs_without_an_answer_are_compared(tmp_path: Path) -> None:
    none = written(tmp_path / "none.json", [shed(0, 1.0)])
    found = compare(none, none)
    assert found.names == ("A: none", "B: none")
    assert compare_page(found).count("<svg") == 1
    assert all(row.change in ("same", "–") for row in found.rows)


@pytest.mark.parametrize(
    ("first", "second", "unit", "change"),
    [
        (1.0, 1.5, "ms", "+50.0%"),
        (0.0, 1.0, "ms", "–"),
        (0.0, 0.0, "ms", "same"),
        (0.5, 0.5, "%", "same"),
        (None, 1.0, "ms", "–"),
        (1e-300, 1e300, "ms", "–"),
    ],
)
def test_change(first: float | None, second: float, unit: str, change: str) -> None:
    assert Row("x", first, second, unit).change == change


class Page(HTMLParser):
    """Collects tags and the addresses that a page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]


def test_page_shows_both_runs_and_runs_nothing(fast: Path, slow: Path) -> None:
    page = compare_page(compare(fast, slow))
    found = Page(page)
    assert "script" not in found.tags
    assert [address for address in found.loads if not address.startswith("#")] == []
    assert page.count("<svg") == 3
    assert "Comparable: same scenario" in page
    assert "-25.00 points" in page
    assert re.search(r"repeat each", page)


def test_content_of_a_report_cannot_change_page_or_terminal(tmp_path: Path) -> None:
    evil = dict.fromkeys(
        ("scenario", "scenario_title", "path", "policy", "bundle_id", "commit", "command"), EVIL
    )
    file = written(tmp_path / "a.json", [answered(0, 10.0, 3.0)], **evil)
    other = written(tmp_path / "b.json", [answered(0, 10.0, 3.0)])
    page = compare_page(compare(file, other))
    assert "script" not in Page(page).tags
    assert "\x1b" not in page
    done = CliRunner().invoke(
        load, ["--compare", str(file), str(other), "--out", str(tmp_path / "c")]
    )
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output


def test_command_prints_the_table_and_writes_the_page(
    fast: Path, slow: Path, tmp_path: Path
) -> None:
    out = tmp_path / "both"
    done = CliRunner().invoke(load, ["--compare", str(fast), str(slow), "--out", str(out)])
    assert done.exit_code == 0, done.output
    printed = done.stdout.splitlines()
    assert printed[:-1] == lines(compare(fast, slow))
    assert printed[-1] == f"written: {out}.html"
    assert "<svg" in out.with_name("both.html").read_text(encoding="utf-8")
    assert not out.with_name("both.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '{"format": 2}', "\0", '{"a": NaN}'])
def test_other_files_are_refused_in_one_sentence(fast: Path, tmp_path: Path, content: str) -> None:
    other = tmp_path / "other.json"
    other.write_text(content)
    with pytest.raises(InvalidInput, match=r"compare: .*other.json is no report of dimee load"):
        compare(fast, other)


def test_pipe_folder_and_missing_file_are_refused(fast: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in (pipe, tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidInput, match="cannot be read"):
            compare(file, fast)


def test_slowest_requests_have_their_identifiers() -> None:
    samples = [answered(i, 10.0 + i, 3.0) for i in range(30)] + [shed(30, 500.0)]
    samples.append(Sample(31, 3.1, latency_ms=700.0, error_code="timeout"))
    worst = make_report(FACTS, samples, [], 4.0, 1_000.0)["worst"]
    assert len(worst) == WORST
    assert [one["request_id"] for one in worst[:4]] == [None, "r-shed", "r29", "r28"]
    assert describe_worst(worst[0]) == (
        "700.0 ms at 3.10 s, no answer (timeout), without an identifier"
    )
    assert describe_worst(worst[1]) == "500.0 ms at 3.00 s, shed (overloaded), request r-shed"
    assert describe_worst(worst[2]) == "39.0 ms at 2.90 s, answered by mobile, request r29"
