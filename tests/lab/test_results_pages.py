"""Published pages: opening table, links, anchors, introductions."""

from __future__ import annotations

import re

import pytest

from lab.reports.claim import OPENING, brief, sst2_sentence
from lab.reports.commands import commands
from lab.reports.load import BASE, Result, load_results, select
from lab.reports.pages import study_pages
from tests.support.paths import REPOSITORY
from tests.support.results_data import DATA, PAGES, PUBLISHED, SAMPLE, facts_of


def opening_row(task: str) -> list[str]:
    page = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {task} \|.*$", page.split("The same on")[0], re.MULTILINE)
    return [cell.strip(" *") for cell in row.strip("|").split("|")]


def test_opening_table_has_the_figures_of_the_json() -> None:
    result = select(load_results(DATA), BASE, "glue")["sst2"]
    assert opening_row("SST-2")[2:] == [brief(result, name) for name in OPENING]


def test_project_readme_quotes_the_sst2_row() -> None:
    words = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    sentence = sst2_sentence(load_results(DATA))
    assert sentence in words, f"README.md should say: {sentence}"
    for cell in opening_row("SST-2")[2:]:
        assert cell in sentence


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_page_exist(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[)#]", (PUBLISHED / name).read_text(encoding="utf-8")):
        assert (PUBLISHED / target).resolve().exists(), target


@pytest.mark.parametrize("name", PAGES)
def test_anchors_of_a_page_are_headings(name: str) -> None:
    for page, anchor in re.findall(
        r"\]\(([\w.-]*)#([^)]+)\)", (PUBLISHED / name).read_text(encoding="utf-8")
    ):
        text_of = (PUBLISHED / (page or name)).read_text(encoding="utf-8")
        heads = re.findall(r"^#+ (.*)$", text_of, re.MULTILINE)
        known = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
        assert anchor in known


@pytest.mark.parametrize("name", PAGES)
def test_page_begins_with_its_subject_and_its_command(name: str) -> None:
    page = (PUBLISHED / name).read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert "`python -m lab.reports`" in page.split("\n\n")[1]
    for word in ("prototype", "the issue", "at hand", "holes"):
        assert word not in page


def test_study_pages_equal_those_of_their_jsons() -> None:
    made = study_pages(PUBLISHED / "extra")
    assert set(made) == {"certified.md", "exits.md", "links.md", "resume.md"}
    for name, page in made.items():
        assert (PUBLISHED / name).read_text(encoding="utf-8") == page, f"{name}: run make results"


def test_commands_of_an_own_task_name_its_fields() -> None:
    """A result of the user's data is not said to come from GLUE's folder."""
    facts = facts_of(SAMPLE)
    facts["run"] |= {"task": "topics", "text_field": "my text", "label_field": "topic"}
    facts["run"] |= {"metric": "macro-f1", "source": "run"}
    facts["data"] = "topics.csv"
    train, evaluate = commands(Result(facts))
    assert "--task topics --data DATA --encoder" in train
    assert "--text-field 'my text' --label-field topic --metric macro-f1" in train
    assert "glue" not in train + evaluate
