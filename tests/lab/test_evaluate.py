"""``dimee evaluate`` by command, on a tiny trained run; and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.cli.evaluate import evaluate
from lab.evaluate.evaluate import evaluate as judge
from lab.evaluate.methods import BASELINE_ROWS, PAPER_METHODS, TIER_ROWS
from lab.evaluate.source import open_outputs
from lab.train.trainer import TrainSettings, train
from shared.errors import InvalidInput
from shared.pricing.cost_model import CostModel
from tests.lab.conftest import make_rows


@pytest.fixture(scope="module")
def run(tiny_data: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated-run")
    settings = TrainSettings(
        "sst2", str(tiny_data), str(tiny_encoder), epochs=6, learning_rate=3e-3, bf16=False
    )
    train(settings, folder)
    return folder


def test_one_json_holds_every_study(run: Path, tmp_path: Path) -> None:
    shift = tmp_path / "shift"
    shift.mkdir()
    for number, name in enumerate(("books", "dvd", "electronics")):
        lines = "".join(json.dumps(row) + "\n" for row in make_rows(60, 40 + number))
        (shift / f"{name}.jsonl").write_text(lines)
    options = ["--shift", str(shift), "--out", str(tmp_path), "--on", "glue"]
    done = CliRunner().invoke(evaluate, [str(run), *options], catch_exceptions=False)
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


def test_a_price_book_takes_the_place_of_the_preset(run: Path, tmp_path: Path) -> None:
    book = tmp_path / "prices.json"
    book.write_text(
        json.dumps({"version": "here", "cost_model": {"edge_layer": 1, "cloud_fee": 7}})
    )
    done = CliRunner().invoke(
        evaluate,
        [str(run), "--price-book", str(book), "--out", str(tmp_path)],
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
    over = judge(open_outputs(run), "test", 1, 2, 0.1, 2.0, price_book=book)
    assert over["cost_model"]["cloud_fee"] == 2, "--cloud-fee replaces the book's"


def test_the_same_run_gives_the_same_json(run: Path) -> None:
    first, second = (judge(open_outputs(run), "test", 1, 2, 0.1, None) for _ in range(2))
    assert first == second


def test_an_empty_pool_is_one_warning_and_no_nan(run: Path, tmp_path: Path) -> None:
    """At μ = 100 cost decides alone, everything stays on the mobile, and two pools are empty."""
    done = CliRunner().invoke(
        evaluate, [str(run), "--mu", "100", "--out", str(tmp_path)], catch_exceptions=False
    )
    assert "warning: no validation example is hard at α = 0.5" in done.output
    (file,) = tmp_path.glob("*.json")
    assert "NaN" not in file.read_text()
    assert json.loads(file.read_text())["methods"]["dimee-fixed"]["shares"]["mobile"] == 1


def test_a_class_that_the_reported_split_lacks_is_refused(
    run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_text((tiny_data / "train.jsonl").read_text())
    rows = [row for row in make_rows(60, 9) if row["label"] == 1]
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InvalidInput, match="reported part has no example of 'negative'"):
        judge(open_outputs(run, str(tmp_path)), "glue", 1, 2, 0.1, None)


def test_layers_that_do_not_fit_are_refused(run: Path) -> None:
    with pytest.raises(InvalidInput, match="must hold 1 <= m < n <= 3"):
        judge(open_outputs(run), "test", 2, 2, 0.1, None)


def test_a_missing_shift_folder_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"books\.jsonl"):
        judge(open_outputs(run), "test", 1, 2, 0.1, None, tmp_path / "none")
