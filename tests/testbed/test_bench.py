"""The benchmark: early exit, environments of the servers, options and page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.bundle.loading import Bundle
from shared.domain import InputText
from shared.errors import InvalidInput
from testbed.bench.cli import bench
from testbed.bench.early_exit import early_exit
from testbed.bench.page import bench_page
from testbed.bench.peers import PEERS, environment
from testbed.processes.ports import free_ports
from testbed.texts import read_labelled_texts
from tests.support.descriptions import PAIRS, SINGLE

TEXTS = [
    InputText("a gripping, funny film"),
    InputText("dull and far too long"),
    InputText("it is not without charm"),
]


def test_early_exit_is_compared_through_a_server(bundle: Bundle, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    found = early_exit(bundle.path, tmp_path, TEXTS, port, {"three": 3}, 0.5, 0.5, runs=1)
    one = found["three"]
    assert one["mean_exit_layer"]["off"] == 3
    assert one["mean_exit_layer"]["on"] == 1  # no confidence of two labels is below a half
    assert set(one["by_connections"]) == {"8", "64"}
    for at in one["by_connections"].values():
        assert at["ratio_min"] <= at["ratio"] <= at["ratio_max"]
        assert min(at["on"]["rps"], at["off"]["rps"]) > 0
    made = {"made_at": "now", "command": "c", "commit": "c", "bundle_id": "b", "runs": 1}
    machine = {"cpu": "c", "cores": 2, "load_before": 0.0, "python": "3"}
    page = bench_page(
        {"early-exit": made | {"seconds": 0.5, "machine": machine, "found": found}}, "bench"
    )
    assert "| three (3) | 64 |" in page


def test_servers_stay_offline_and_ours_gets_its_settings(tmp_path: Path) -> None:
    for peer in PEERS:
        found = environment(peer, peer.variants[0], tmp_path, 1234, tmp_path)
        assert found["HF_HUB_OFFLINE"] == "1"
        assert ("DIMEE_PORT" in found) == (peer.venv is None)
        assert json.dumps(peer.body(InputText("a")))


def test_unknown_server_is_refused_with_the_choices(tmp_path: Path) -> None:
    data = tmp_path / "validation.jsonl"
    data.write_text('{"sentence": "fine", "label": 1}\n')
    result = CliRunner().invoke(
        bench, ["--data", str(tmp_path), "--text-field", "sentence", "--only", "torchserve"]
    )
    assert result.exit_code != 0
    assert "LitServe" in str(result.exception)


def test_page_has_every_measured_part() -> None:
    level = {"rps": 10.0, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "errors": 0}
    level |= {"cpu_s_per_1000": 1.0, "peak_mb": 5.0}
    run = {"1": level, "8": level, "64": level}
    server = {
        "runs": [run],
        "median": run,
        "precision": "fp32",
        "variant": "a",
        "tried_rps_at_64": {"a": 10.0},
        "versions": {"x": "1"},
    }
    made = {
        "made_at": "now",
        "command": "dimee bench",
        "commit": "c",
        "bundle_id": "b",
        "runs": 1,
        "seconds": 1.0,
        "machine": {"cpu": "c", "cores": 2, "load_before": 0.0, "python": "3"},
    }
    report = {"servers": made | {"found": {"dimee": server, "other": server}}}
    cost = {"rps": {"off": 100.0, "on": 99.0}, "rps_ratio": 0.99, "cpu_ratio": 1.01}
    report["metrics"] = made | {"found": {"edge": cost}}
    report["layers"] = made | {"found": {"shipped": {"1": 1.0, "8": 2.0, "32": 3.0}}}
    text = bench_page(report, "bench")
    assert "1.0 × other" in text
    assert "| shipped | 1 | 2 | 3 |" in text
    assert "| edge | 100 | 99 | 0.990 | 1.010 |" in text
    assert "Open loop" not in text


def test_labelled_texts_are_read_by_the_names_of_their_fields(tmp_path: Path) -> None:
    file = tmp_path / "validation.jsonl"
    file.write_text('{"sentence": "fine", "label": 1}\n{"sentence": "dull", "label": "bad"}\n')
    expected = [InputText("fine", None, "good"), InputText("dull", None, "bad")]
    assert read_labelled_texts(tmp_path, SINGLE, {"text_field": "sentence"}) == expected
    trained = SINGLE.model_copy(update={"fields": {"text": "sentence"}})
    assert read_labelled_texts(tmp_path, trained, {}) == expected
    file.write_text('{"question1": "a", "question2": "b", "label": 0}\n')
    fields = {"text_field": "question1", "pair_field": "question2"}
    assert read_labelled_texts(file, PAIRS, fields) == [InputText("a", "b", "no")]


@pytest.mark.parametrize(
    "line",
    ["", "no json", "[1]", '{"text": "fine"}', '{"text": " ", "label": 1}',
     '{"text": "fine", "label": 2}', '{"text": "fine", "label": -1}',
     '{"text": "fine", "label": true}', '{"text": "fine", "label": "great"}'],
)  # fmt: skip
def test_invalid_labelled_text_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "validation.jsonl").write_text(line)
    with pytest.raises(InvalidInput, match=r"validation\.jsonl (line 1|has no text)"):
        read_labelled_texts(tmp_path, SINGLE, {})


def test_field_that_is_missing_is_named_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "validation.jsonl").write_text('{"sentence": "fine", "label": 1}\n')
    with pytest.raises(
        InvalidInput, match=r"it has sentence, label\); name yours with --text-field"
    ):
        read_labelled_texts(tmp_path, SINGLE, {})


def test_servers_that_take_no_pairs_are_known() -> None:
    for peer in PEERS:
        assert peer.takes_pairs == ("infinity" not in peer.name), peer.name
        body = peer.body(InputText("first", "second"))
        assert peer.takes_pairs == (body.get("pair") == "second")
