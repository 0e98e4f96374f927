"""``dimee evaluate`` on a tiny run, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.cli.evaluate import evaluate
from lab.evaluate.evaluate import evaluate as run_evaluation
from lab.evaluate.methods import BASELINE_ROWS, PAPER_METHODS, TIER_ROWS
from lab.evaluate.source import open_outputs
from shared.errors import InvalidInput
from shared.pricing.cost_model import CostModel
from tests.support.tiny_data import make_rows, write_rows


def test_json_has_every_study(fixed_run: Path, tmp_path: Path) -> None:
    shift = tmp_path / "shift"
    for number, name in enumerate(("books", "dvd", "electronics")):
        write_rows(shift / f"{name}.jsonl", make_rows(60, 40 + number))
    options = ["--shift", str(shift), "--out", str(tmp_path), "--on", "glue"]
    done = CliRunner().invoke(evaluate, [str(fixed_run), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    file = Path(done.output.split("written: ")[1].strip())
    result = json.loads(file.read_text())
    assert (result["m"], result["n"], result["layers"]) == (1, 2, 3)
    assert set(result["methods"]) == {*PAPER_METHODS, *TIER_ROWS, *BASELINE_ROWS}
    assert result["reported"] == 400
    assert set(result["shift"]) == {"books", "dvd", "electronics"}
    assert len(result["map"]["points"]) == len(result["map"]["pools"])
    assert "NaN" not in file.read_text()
    row = result["methods"]["dimee-fixed"]
    assert f"{row['accuracy']:.2f}" in done.output
    assert "cascade_routing" not in result
    assert "note: cascade-routing is left out, because 40 validation examples" in done.output


def test_price_book_replaces_the_preset(fixed_run: Path, tmp_path: Path) -> None:
    book = tmp_path / "prices.json"
    book.write_text(
        json.dumps({"version": "here", "cost_model": {"edge_layer": 1, "cloud_fee": 7}})
    )
    done = CliRunner().invoke(
        evaluate,
        [str(fixed_run), "--price-book", str(book), "--out", str(tmp_path)],
        catch_exceptions=False,
    )
    result = json.loads(Path(done.output.split("written: ")[1].strip()).read_text())
    assert result["price_book"] == "here"
    assert (result["cost_model"]["edge_layer"], result["cost_model"]["cloud_fee"]) == (1, 7)
    assert result["cost_model"]["mobile_layer"] == CostModel.paper(3).mobile_layer
    assert result["methods"]["cloud"]["cost_change"] == 0
    edge = [point["methods"]["edge"]["cost_lambda"] for point in result["by_cloud_fee"].values()]
    assert max(edge) <= 2.5 + 1 * 2, "two layers at the book's λe = 1, not at the preset's 4"
    assert done.output.strip().endswith("-here.json")
    over = run_evaluation(open_outputs(fixed_run), "test", 1, 2, 0.1, 2.0, price_book=book)
    assert over["cost_model"]["cloud_fee"] == 2, "--cloud-fee replaces the book's"


def test_same_run_gives_the_same_json(fixed_run: Path) -> None:
    first, second = (
        run_evaluation(open_outputs(fixed_run), "test", 1, 2, 0.1, None) for _ in range(2)
    )
    assert first == second


def test_empty_pool_is_a_warning_and_no_nan(fixed_run: Path, tmp_path: Path) -> None:
    """At μ = 100 only the cost matters: everything stays on the mobile, and two pools are empty."""
    done = CliRunner().invoke(
        evaluate, [str(fixed_run), "--mu", "100", "--out", str(tmp_path)], catch_exceptions=False
    )
    assert "warning: no validation example is hard at α = 0.5" in done.output
    (file,) = tmp_path.glob("*.json")
    assert "NaN" not in file.read_text()
    assert json.loads(file.read_text())["methods"]["dimee-fixed"]["shares"]["mobile"] == 1


def test_reported_part_without_a_class_is_refused(
    fixed_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_text((tiny_data / "train.jsonl").read_text())
    rows = [row for row in make_rows(60, 9) if row["label"] == 1]
    write_rows(tmp_path / "validation.jsonl", rows)
    with pytest.raises(InvalidInput, match="reported part has no example of 'negative'"):
        run_evaluation(open_outputs(fixed_run, str(tmp_path)), "glue", 1, 2, 0.1, None)


def test_wrong_layers_are_refused(fixed_run: Path) -> None:
    with pytest.raises(InvalidInput, match="must hold 1 <= m < n <= 3"):
        run_evaluation(open_outputs(fixed_run), "test", 2, 2, 0.1, None)


def test_missing_shift_folder_is_refused(fixed_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"books\.jsonl"):
        run_evaluation(open_outputs(fixed_run), "test", 1, 2, 0.1, None, tmp_path / "none")
