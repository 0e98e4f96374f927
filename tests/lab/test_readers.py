"""Readers of CSV, TSV, JSON lines, Parquet and hubs, and what they refuse."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.data.examples import Example, labels_of_data, load_examples
from lab.data.readers import READERS, Row, read_table
from lab.data.sources import columns_of, open_table
from lab.data.tasks import Task
from shared.errors import InvalidInput

TASK = Task("topics", "text", None, ("art", "law", "sport"), label_field="topic")
ROWS = [
    {"id": 1, "text": 'a "quoted",\nsecond line', "topic": "law"},
    {"id": 2, "text": "tab\there; naïve 🎬", "topic": "art"},
    {"id": 3, "text": "plain", "topic": "sport"},
]
EXAMPLES = [Example(str(row["text"]), None, TASK.labels.index(str(row["topic"]))) for row in ROWS]


def delimited(delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*ROWS[0]], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet(rows: list[dict[str, Any]] = ROWS) -> bytes:
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), content)
    return content.getvalue()


JSON_LINES = "".join(json.dumps(row) + "\n\n" for row in ROWS).encode()
BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", delimited(",")),
        ("train.CSV", BOM + delimited(",")),
        ("train.csv", delimited(";")),
        ("train.csv", delimited("\t")),
        ("train.tsv", BOM + delimited("\t")),
        ("train.jsonl", BOM + JSON_LINES),
        ("train.ndjson", JSON_LINES),
        ("train.json", JSON_LINES),
        ("train.parquet", parquet()),
    ],
)
def test_every_format_gives_the_same_examples(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert load_examples(str(tmp_path / name), TASK, "train") == EXAMPLES
    assert labels_of_data(str(tmp_path / name), "text", "topic") == TASK.labels
    assert columns_of(str(tmp_path / name)) == ("id", "text", "topic")
    if name.islower():
        assert load_examples(str(tmp_path), TASK, "train") == EXAMPLES


def test_a_quoted_cell_may_be_long_and_a_row_knows_its_line(tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text(f'text,topic\r\n"{"long " * 20_000}\r\nend",law\r\n\r\nshort,\r\n', newline="")
    rows = list(read_table(file).rows)
    assert [(row.number, row.line) for row in rows] == [(1, 2), (2, 5)]
    assert len(rows[0].values["text"]) == 100_005
    with pytest.raises(InvalidInput, match=r"long\.csv row 2 \(line 5\) has no label in 'topic'"):
        load_examples(str(file), TASK, "train")


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text("ab\"'\n,"))))
def test_a_written_table_is_read_back(cells: list[tuple[str, str]]) -> None:
    """Texts with separators, quotes, line breaks and every character but a surrogate are kept."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "topic"), *cells])
    file = _Memory(text.getvalue().encode())
    rows = [tuple(row.values.values()) for row in READERS[".csv"](file).rows]  # type: ignore[arg-type]
    assert rows == cells


class _Memory:
    """A path whose content is in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def open(self, mode: str) -> io.BytesIO:
        assert mode == "rb"
        return io.BytesIO(self._content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "t.csv",
            b"text,label\na,law\n",
            "no column 'topic'; its columns are text, label: name yours",
        ),
        ("t.csv", b"text,topic,text\na,law,b\n", "has 2 columns 'text'; rename all but one"),
        ("t.csv", b"text,topic\na,law\nb\n", "line 3 has 1 cells, and the header has 2; put"),
        ("t.csv", b"text,topic\na,b,law\n", "line 2 has 3 cells, and the header has 2; put"),
        ("t.csv", b'text,topic\n"a,law\nb,law\n', "line 2 is not well-formed .*double quotes"),
        ("t.csv", b'text,topic\n"a"b,law\n', "line 2 is not well-formed .*double quotes"),
        ("t.csv", b"text,topic\na,law\n\xff,law\n", r"line 3 is not UTF-8 \(byte 1 of the line"),
        ("t.csv", "text,topic\na,law\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (
            "t.csv",
            b"text,topic\n" + b"x" * 140_000 + b",law\n",
            "line 2 has a cell of more than 131,072 characters; shorten it, or close",
        ),
        ("t.csv", b"text,topic\ra,law\rb,art\r", "line 1 has a carriage return; end each line"),
        ("t.csv", b"text,topic\n", "the split 'train' of .* is empty; fill it"),
        ("t.csv", b"", "is empty; write a header and rows"),
        ("t.csv", b"\xef\xbb\xbf\n\n", "is empty; write a header and rows"),
        ("t.csv", b"a text, and no header\n" * 9, "or add a first line of column names if it has"),
        ("t.json", b'[\n{"text": "a", "topic": "law"}\n]', r"line 1 is not JSON \(a list begins"),
        ("t.jsonl", b"[" * 100_000, r"line 1 is not JSON \(it is nested too deep\); write"),
        (
            "t.jsonl",
            b'{"text": "a", "topic": ' + b"1" * 5_000 + b"}",
            r"line 1 is not JSON \(a number has too many digits\); write",
        ),
        (
            "t.csv",
            b"text,topic\n ,law\n",
            r"row 1 \(line 2\) has no text in 'text'; remove",
        ),
        ("t.csv", b"text,topic\na, \n", r"row 1 \(line 2\) has no label in 'topic'"),
        (
            "t.csv",
            b"text,topic\na,war\n",
            "'war'; topics has art, law, sport, or 0 to 2; cor",
        ),
        (
            "t.csv",
            b"text,topic\na\0b,law\n",
            r"holds the character U\+0000 at character 2 in",
        ),
        ("t.tsv", b"text,topic\na,law\n", "has no column 'text'; its columns are text,topic: name"),
        ("t.jsonl", b'{"text": "a"}\n', "row 1 has no field 'topic'; it has text: add the field"),
        ("t.jsonl", b'\n{"text": "a",\n', "line 2 is not JSON .*; write one object per line"),
        ("t.jsonl", b'{"text": "\xff"}', r"line 1 is not UTF-8 \(byte 11 of the line\)"),
        (
            "t.parquet",
            parquet([{"text": "a"}]),
            "no column 'topic'; its columns are text: [^,]*, --pair-field or --label-field$",
        ),
        ("t.parquet", parquet([{"text": None, "topic": "law"}]), "row 1 has no text in 'text'"),
        ("t.parquet", parquet([{"text": "a", "topic": None}]), "row 1 has no label in 'topic'"),
        (
            "t.parquet",
            parquet([{"text": "a", "topic": 0.5}]),
            "label 0.5, which is a number",
        ),
        ("t.parquet", b"PAR1", "is not a Parquet file"),
        ("t.parquet", b"", "is empty"),
        ("t.parquet", parquet()[:-200] + parquet()[-199:], "is not a Parquet file|cannot be read"),
        ("t.xlsx", b"", r"is of no known kind; give a file that ends with \.csv, \.tsv, \.jsonl"),
        ("train", b"", "is of no known kind"),
    ],
)
def test_wrong_files_are_refused_in_one_sentence(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as refused:
        load_examples(str(tmp_path / name), TASK, "train")
    assert str(tmp_path / name) in refused.value.message
    assert "\n" not in refused.value.message


def test_folder_has_one_file_for_each_split(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(delimited(","))
    (tmp_path / "validation.parquet").write_bytes(parquet())
    assert load_examples(str(tmp_path), TASK, "validation") == EXAMPLES
    with pytest.raises(InvalidInput, match=r"test\.jsonl does not exist; give a folder that holds"):
        load_examples(str(tmp_path), TASK, "test")
    (tmp_path / "train.tsv").write_bytes(delimited("\t"))
    with pytest.raises(InvalidInput, match=r"holds train\.csv and train\.tsv; keep one of them"):
        load_examples(str(tmp_path), TASK, "train")


def test_duplicate_of_a_column_that_is_not_used_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text,topic,id\n1,a,law,2\n")
    assert load_examples(str(tmp_path / "t.csv"), TASK, "train") == [Example("a", None, 1)]


def test_parquet_columns_that_are_not_used_may_hold_anything(tmp_path: Path) -> None:
    """Such as dates after the year 9999; names of a label that are no strings are no names."""
    features = {"topic": {"_type": "ClassLabel", "names": [5, 6]}}
    far = pyarrow.array([2**61] * 2, pyarrow.timestamp("us"))
    table = pyarrow.table({"when": far, "text": ["a", "b"], "topic": [0, 1]})
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
    assert labels_of_data(str(tmp_path / "t.parquet"), "text", "topic") == ("0", "1")
    found = load_examples(str(tmp_path / "t.parquet"), TASK, "train")
    assert found == [Example("a", None, 0), Example("b", None, 1)]


def test_labels_may_be_missing_where_none_are_needed(tmp_path: Path) -> None:
    for name, content in (
        ("a.csv", b"text\na\n"),
        ("b.csv", b"text,topic\na,\n"),
        ("c.jsonl", b'{"text": "a", "topic": -1}\n'),
    ):
        (tmp_path / name).write_bytes(content)
        found = load_examples(str(tmp_path / name), TASK, "validation", labelled=False)
        assert found == [Example("a", None, -1)]


def make_hub(folder: Path, names: list[str]) -> str:
    """Write a folder in a hub's layout, whose label is a ClassLabel, and return its name."""
    rows = {"text": [f"text {n}" for n in range(6)], "label": [n % len(names) for n in range(6)]}
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    folder.mkdir(parents=True)
    datasets.Dataset.from_dict(rows, features).to_parquet(folder / "train.parquet")
    lines = ["---", "configs:", "- config_name: plain", "  data_files:", "  - split: train"]
    lines += ["    path: train.parquet", "---", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    return f"{folder}:plain"


@pytest.mark.parametrize("names", [["world", "スポーツ"], ["2", "1", "5"]])
def test_hub_gives_the_names_of_its_labels_in_its_order(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's library reads a folder in the hub's layout."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    hub = make_hub(tmp_path / "news", names)
    for source in (hub, str(tmp_path / "news"), str(tmp_path / "news" / "train.parquet")):
        assert labels_of_data(source, "text", "label") == tuple(names)
        task = Task("news", "text", None, tuple(names))
        found = load_examples(source, task, "train")
        assert [row.label for row in found] == [number % len(names) for number in range(6)]
    with pytest.raises(InvalidInput, match="has no column 'body'; its columns are text, label"):
        labels_of_data(hub, "body", "label")


def test_a_missing_file_is_no_name_of_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []
    monkeypatch.setattr(
        "datasets.load_dataset", lambda name, config, split: asked.append((name, config))
    )
    monkeypatch.chdir(tmp_path)
    for missing in ("data/topics.csv", "topics", "./owner/name", str(tmp_path / "none")):
        with pytest.raises(InvalidInput, match="is neither a folder with"):
            open_table(missing, "train")
    assert asked == []
    for name in ("owner/name", "owner/name:config"):
        with pytest.raises(AttributeError):
            open_table(name, "train")
    assert asked == [("owner/name", None), ("owner/name", "config")]


def test_row_says_its_line_if_it_is_another_number() -> None:
    assert Row(3, 3, {}).place == "row 3"
    assert Row(3, 7, {}).place == "row 3 (line 7)"
    assert Row(3, None, {}).place == "row 3"
