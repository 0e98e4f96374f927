"""The paper's numbers equal its text, and the tables show them beside ours."""

from __future__ import annotations

import re

import pytest

from lab.reports import paper, render
from tests.support.results_data import PAPER, PUBLISHED


def paper_tables() -> list[dict[str, dict[str, tuple[float, float | None]]]]:
    """Return every table of the paper's text: row, task, (score, cost change; None for 1.00)."""
    tables: list[dict[str, dict[str, tuple[float, float | None]]]] = []
    tasks: list[str] = []
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        cells = [re.sub(r"</?b>", "", cell).strip() for cell in line.split("\t")]
        if cells[0] == "Model/Data":
            tasks = [re.sub(r"\W", "", cell).lower() for cell in cells[1:] if cell]
            tables.append({})
        elif not line.strip():
            tasks = []
        elif tasks and cells[0]:
            scores = [float(cell) for cell in cells[1:-1:2] if cell]
            costs = [None if cell == "1.00" else float(cell.removesuffix("%"))
                     for cell in cells[2::2] if cell]  # fmt: skip
            pairs = zip(scores, costs, strict=True)
            tables[-1][cells[0]] = dict(zip(tasks, pairs, strict=True))
    return tables


@pytest.mark.skipif(not PAPER.is_file(), reason="../shared/paper/dimee.md is not here")
def test_tables_have_every_number_of_the_paper() -> None:
    printed = paper_tables()
    assert len(printed) == 2
    for of_paper, ours in zip(printed, (paper.TABLE_I, paper.TABLE_II), strict=True):
        as_printed = {
            paper.ROW_NAMES[method]: {
                task: (cell.score, None if method == "bert" else cell.cost_change)
                for task, cell in row.items()
            }
            for method, row in ours.items()
        }
        assert as_printed == of_paper
        assert all(cell.cost_change == 0 for cell in ours["bert"].values())
    assert [len(row) for row in (paper.TABLE_I["bert"], paper.TABLE_II["bert"])] == [6, 3]


@pytest.mark.skipif(not PAPER.is_file(), reason="../shared/paper/dimee.md is not here")
def test_claim_is_that_of_the_abstract() -> None:
    abstract = re.sub(r"\s+", " ", PAPER.read_text(encoding="utf-8")).split("**Index Terms**")[0]
    assert f"> {paper.CLAIMED_SAVING:g}\\%" in abstract
    assert f"< {paper.CLAIMED_DROP:g}\\%" in abstract


def test_misprint_is_corrected_in_comparisons() -> None:
    assert paper.TABLE_I["dimee-fixed"]["qnli"].score == 82.1
    assert paper.score("dimee-fixed", "qnli") == 92.1
    assert paper.score_change("dimee-fixed", "qnli") == -0.4
    assert paper.score_change("dimee-adaptive", "sst2") == 0.1


def test_tables_page_has_the_paper_s_rows() -> None:
    page = (PUBLISHED / "tables.md").read_text(encoding="utf-8")
    for method, name in paper.ROW_NAMES.items():
        assert page.count(f"\n| {name} (`{method}`) | ") == len(paper.TABLE_I[method])
        row = " | ".join(
            f"{render.number(cell.score, 1)} | {render.percent(cell.cost_change, 0)}"
            for cell in paper.TABLE_II[method].values()
        )
        if method != "bert":
            assert f"| {name} | {row} |" in page
