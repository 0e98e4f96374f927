"""Tasks: labels, ``task.json``, options, and the facts that give them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.data.examples import labels_of_data, load_examples
from lab.data.labels import MAX_LABELS, check_labels, ordered_labels
from lab.data.task_file import FIELDS, name_of_data, resolve_task
from lab.data.tasks import (
    TASKS,
    Task,
    all_facts_of_task,
    facts_of_task,
    get_task,
    task_of_bundle,
    task_of_facts,
)
from shared.bundle.loading import load_bundle
from shared.errors import InvalidInput
from shared.field_types import MAX_LABEL_CHARS
from shared.labels import label_indices, label_name
from tests.support.paths import BUNDLE
from tests.support.tiny_data import TOPICS, make_rows, make_topic_rows, write_rows, write_table

NAMES = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20
).filter(lambda name: name == name.strip())


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (3, "3"), (3.0, "3"), ("3", "3"), (" 3 ", "3"), (-1, "-1"), (True, "true"),
        (False, "false"), ("True", "True"), ("007", "007"), ("2.5", "2.5"), ("", ""), (None, ""),
        (float("nan"), ""), ("スポーツ", "スポーツ"), ("🎬 cine", "🎬 cine"),
    ],
)  # fmt: skip
def test_name_of_a_label(value: object, name: str) -> None:
    assert label_name(value) == name


@pytest.mark.parametrize("value", [0.5, float("inf"), [1], {"a": 1}, b"bytes"])
def test_value_that_is_no_label_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"not whole|neither a string nor a number"):
        label_name(value)


@given(st.lists(NAMES))
def test_order_of_labels_depends_on_their_names_only(names: list[str]) -> None:
    labels = ordered_labels(names)
    assert set(labels) == set(names)
    assert len(labels) == len(set(names))
    assert labels == ordered_labels(reversed(names))


@given(st.sets(st.integers(-500, 500), min_size=2))
def test_numbers_are_in_numeric_order(numbers: set[int]) -> None:
    assert ordered_labels(map(str, numbers)) == tuple(map(str, sorted(numbers)))


@given(st.sets(NAMES, min_size=2, max_size=30))
def test_names_of_labels_survive_files_and_facts(names: set[str]) -> None:
    task = Task("own", "text", None, ordered_labels(names))
    for facts in (facts_of_task(task), all_facts_of_task(task)):
        assert task_of_facts(json.loads(json.dumps(facts))) == task
    assert [label_indices(task.labels)[name] for name in task.labels] == [*range(len(names))]


def test_number_is_a_label_itself_or_counts_the_labels() -> None:
    by_name = Task("own", "text", None, ("bad", "good"))
    assert label_indices(by_name.labels) == {"bad": 0, "good": 1, "0": 0, "1": 1}
    stars = Task("own", "text", None, ("1", "2", "3"))
    assert label_indices(stars.labels) == {"1": 0, "2": 1, "3": 2}
    mixed = Task("own", "text", None, ("0", "many"))
    assert label_indices(mixed.labels) == {"0": 0, "many": 1}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "there is no label"),
        (["only"], "there is only the label 'only'; a classifier needs at least 2"),
        ([str(n) for n in range(MAX_LABELS + 1)], "1,001 different ones are more than the 1,000"),
        (["a", ""], "'' is empty"),
        (["a", "b "], "begins or ends with white space"),
        (["a", "x" * (MAX_LABEL_CHARS + 1)], "has 257 characters; shorten it to at most 256"),
        (["a", "b\nc"], r"holds the character U\+000A"),
        (["a", "b\x9b"], r"holds the character U\+009B"),
        (["a", "b\ud800"], r"holds the character U\+D800"),
        (["a", "b\u200b"], r"holds the character U\+200B"),
        (["a", "b\u202e"], r"holds the character U\+202E"),
        (["a", "b", "a"], "'a' is given twice"),
        (["\u00e9t\u00e9", "e\u0301te\u0301"], "is given twice .*look alike"),
    ],
)
def test_names_that_are_no_labels_are_refused(labels: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_labels(labels)
    check_labels([f"class {n}" for n in range(MAX_LABELS)])


def test_labels_of_the_data_in_every_form(tmp_path: Path) -> None:
    for name, content, labels in (
        ("numbers.csv", "text,label\na,10\nb,9\nc,-1\n", ("-1", "9", "10")),
        ("numbers.jsonl", '{"text": "a", "label": 10}\n{"text": "b", "label": 9.0}\n', ("9", "10")),
        ("flags.jsonl", '{"text": "a", "label": true}\n{"text": "b", "label": false}\n',
         ("false", "true")),
        ("mixed.csv", "text,label\na,10\nb,nine\n", ("10", "nine")),
    ):  # fmt: skip
        file = tmp_path / name
        file.write_text(content)
        assert labels_of_data(str(file), "text", "label") == labels
        task, _ = resolve_task(str(file), {"text_field": "text"})
        assert task.labels == labels
        assert [task.labels[row.label] for row in load_examples(str(file), task, "train")] == [
            label_name(line) for line in _labels_in(content)
        ]


def _labels_in(content: str) -> list[object]:
    if content.startswith("{"):
        return [json.loads(line)["label"] for line in content.splitlines()]
    return [line.split(",")[1] for line in content.splitlines()[1:]]


def test_glue_name_needs_no_field(tmp_path: Path) -> None:
    data = tmp_path / "sst2"
    write_rows(data / "train.jsonl", make_rows(30, 1))
    for options in ({"name": "sst2"}, {}):
        assert resolve_task(str(data), options) == (TASKS["sst2"], "paper")
    assert facts_of_task(TASKS["sst2"]) == {"task": "sst2"}
    assert task_of_facts({"task": "sst2"}).hold_out == "phrases"
    task, split = resolve_task(
        str(data), {"name": "sst2", "metric": "macro-f1", "hold_out": "texts", "split": "glue"}
    )
    assert (task.metric, task.hold_out, task.labels, split) == (
        "macro-f1", "texts", ("negative", "positive"), "glue",
    )  # fmt: skip
    assert task_of_facts(facts_of_task(task)) == task
    own, split = resolve_task(str(data), {"text_field": "sentence"})
    assert (own.name, own.labels, split) == ("sst2", ("0", "1"), "grouped")


def test_own_task_from_options(tmp_path: Path) -> None:
    file = write_table(tmp_path / "mis temas.csv", make_topic_rows(30, 1))
    task, split = resolve_task(str(file), {"text_field": "text", "label_field": "topic"})
    assert task == Task("mis-temas", "text", None, TOPICS, label_field="topic")
    assert split == "grouped"
    named, _ = resolve_task(
        str(file), {"text_field": "text", "label_field": "topic", "name": "my-topics"}
    )
    assert named.name == "my-topics"


def test_task_file_and_options_that_win_over_it(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        write_table(tmp_path / f"{name}.tsv", make_topic_rows(30, 1), "\t")
    content = {
        "name": "topics", "text_field": "text", "label_field": "topic", "metric": "macro-f1",
        "labels": [*reversed(TOPICS)], "split": "glue", "hold_out": "phrases",
    }  # fmt: skip
    (tmp_path / "task.json").write_text(json.dumps(content), encoding="utf-8")
    expected = Task(
        "topics", "text", None, TOPICS[::-1], "topic", metric="macro-f1", hold_out="phrases"
    )
    assert resolve_task(str(tmp_path), {}) == (expected, "glue")
    assert resolve_task(str(tmp_path / "train.tsv"), {}) == (expected, "glue")
    task, split = resolve_task(
        str(tmp_path), {"metric": "accuracy", "split": "files", "name": "other", "hold_out": None}
    )
    assert (task.metric, split, task.name, task.hold_out) == (
        "accuracy", "files", "other", "phrases",
    )  # fmt: skip
    (tmp_path / "task.json").write_text('{"text_field": "text", "label_field": "topic"}')
    assert resolve_task(str(tmp_path), {})[1] == "files"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"task\.json is not JSON \(Expecting property name .*\); write one object like"),
        ("[" * 100_000, r"task\.json is not JSON \(it is nested too deep\); write one object"),
        ('{"labels": [' + "1" * 5_000 + "]}", r"is not JSON \(a number has too many digits\)"),
        ("[]", "is not a JSON object"),
        (
            '{"text": "text"}',
            "has 'text'; the known fields are name, text_field",
        ),
        ('{"text_field": 3}', "has text_field = 3; give a string"),
        ('{"text_field": "text", "labels": "a,b"}', "labels = 'a,b', which is no list"),
        ('{"text_field": "text", "labels": [0.5, 1]}', "which is a number that is not whole"),
        ('{"text_field": "text", "labels": ["a"]}', "there is only the label 'a'"),
        ('{"text_field": "text", "metric": "recall"}', "metric: 'recall' is not known; choose one"),
        ('{"text_field": "text", "hold_out": "x"}', "hold_out: 'x' is not known; choose one of te"),
        ('{"text_field": "text", "metric": "f1"}', "f1 needs two labels, and .* has 3; choose mac"),
        (
            '{"text_field": "text", "pair_field": "text"}',
            "must be different fields, not text",
        ),
        ('{"text_field": "none"}', "has no column 'none'; its columns are id, text, label"),
        ('{"text_field": "text", "label_field": "x"}', "has no column 'x'; its columns are"),
        ('{"text_field": "text", "name": "a/b"}', "the name 'a/b' is not allowed; use at most 64"),
        ("{}", r"name the field of the texts with --text-field or in task\.json; .* has id, text"),
    ],
)
def test_wrong_task_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    rows = [{"id": n, "text": f"t {n}", "label": "abc"[n % 3]} for n in range(30)]
    write_table(tmp_path / "train.csv", rows)
    (tmp_path / "task.json").write_text(content)
    with pytest.raises(InvalidInput, match=message) as refused:
        resolve_task(str(tmp_path), {})
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "a", "a"], "there is only the label 'a'; a classifier needs at least 2"),
        ([f"n{n}" for n in range(1_001)], "1,001 different ones are more than the 1,000 allowed"),
        (["a", "", "b"], r"row 2 \(line 3\) has no label in 'label'; remove the row or fill it"),
    ],
)
def test_columns_that_are_no_labels_are_refused(
    labels: list[str], message: str, tmp_path: Path
) -> None:
    rows: list[dict[str, object]] = [{"text": "t", "label": label} for label in labels]
    file = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(InvalidInput, match=message):
        resolve_task(str(file), {"text_field": "text"})


def test_label_that_training_lacks_is_refused_with_its_row(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    write_table(tmp_path / "test.csv", [{"text": "a", "label": "y"}, {"text": "b", "label": "z"}])
    task, _ = resolve_task(str(tmp_path), {"text_field": "text"})
    with pytest.raises(InvalidInput, match=r"test\.csv row 2 \(line 3\) has label 'z'; .* x, y"):
        load_examples(str(tmp_path), task, "test")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("topics.csv", "topics"), ("mis temas (2).csv", "mis-temas-2"), ("темы.csv", "темы"),
        ("news/train.csv", "news"), ("!!!.csv", "task"), ("x" * 99 + ".csv", "x" * 64),
    ],
)  # fmt: skip
def test_name_of_a_file(data: str, name: str, tmp_path: Path) -> None:
    file = write_table(tmp_path / data, [{"text": "a"}])
    assert name_of_data(str(file)) == name
    if data == "news/train.csv":
        assert name_of_data(str(file.parent)) == "news"


def test_name_of_a_hub_data_set() -> None:
    assert name_of_data("owner/news-2024") == "news-2024"
    assert name_of_data("owner/news-2024:plain") == "news-2024-plain"
    assert name_of_data("nyu-mll/glue:sst2") == "sst2"


def test_task_of_a_bundle() -> None:
    bundle = load_bundle(BUNDLE)
    assert task_of_bundle(bundle.manifest, bundle.path) == TASKS["sst2"]
    assert bundle.manifest.metric == "accuracy"
    task = Task("own", "text", "other", ("a", "b"), "topic", "f1", "phrases")

    def manifest(**changes: Any) -> Any:
        return bundle.manifest.model_copy(update={"task": "own", "labels": ("a", "b")} | changes)

    assert task_of_bundle(manifest(training=all_facts_of_task(task)), "b") == task
    with pytest.raises(InvalidInput, match="does not say which fields of the data the task own"):
        task_of_bundle(manifest(training={}), "b")
    with pytest.raises(InvalidInput, match="b has the labels a, b, and sst2 has negative, pos"):
        task_of_bundle(manifest(task="sst2", training={}), "b")


def test_known_fields_are_those_of_the_command() -> None:
    from lab.cli.train import train

    options = {option.name for option in train.params}
    assert {*FIELDS} - options == {"labels"}
    with pytest.raises(InvalidInput, match="choose one of sst2, cola"):
        get_task("imdb")
