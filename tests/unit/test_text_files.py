"""The reader of text files: lines, TSV, CSV and JSON lines; each wrong line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.domain import InputText
from shared.errors import InvalidInput, TooLarge
from shared.labels import find_label
from shared.text import MAX_TEXT_CHARS
from shared.text_files import FieldNames, TextFormat, TextReader

SINGLE = TextReader(pairs=False, labels=("schlecht", "très bien"))
PAIRS = TextReader(pairs=True, labels=("no", "yes"))


def read(reader: TextReader, kind: TextFormat, content: str | bytes) -> list[InputText | str]:
    """Return each row, or the message of its error."""
    raw = content.encode() if isinstance(content, str) else content
    lines = raw.splitlines(keepends=True)
    found: list[InputText | str] = []
    for one in reader.read(lines, kind):
        assert (one.row is None) == (one.error is not None)
        if one.error is not None:
            assert one.error.message.startswith(f"line {one.line}: ")
        found.append(one.row or (one.error.message if one.error else ""))
    return found


def test_plain_lines_skip_blank_ones_and_keep_their_numbers() -> None:
    content = '\ufefffirst\r\n\n  \nsecond, "x"\tit\'s\n'.encode()
    rows = list(SINGLE.read(content.splitlines(keepends=True), "lines"))
    assert [(one.line, one.row) for one in rows] == [
        (1, InputText("first")),
        (4, InputText('second, "x"\tit\'s')),
    ]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("tsv", "a, 'b'\tc\tyes\nd\te\n"),
        ("tsv", "label\ttext\tpair\nyes\ta, 'b'\tc\n\td\te\n"),
        ("csv", "id,text,pair,label\n1,\"a, 'b'\",c,yes\n2,d,e,\n"),
        ("jsonl", '{"text": "a, \'b\'", "pair": "c", "label": 1}\n{"text": "d", "pair": "e"}\n'),
    ],
)
def test_each_format_holds_the_same_pairs(kind: TextFormat, content: str) -> None:
    assert read(PAIRS, kind, content) == [InputText("a, 'b'", "c", "yes"), InputText("d", "e")]


def test_label_of_another_type_is_refused() -> None:
    for value in (["yes"], 0.5):
        with pytest.raises(InvalidInput, match="has a label that is"):
            find_label(value, ("no", "yes"))


def test_tables_with_a_header_are_read_as_in_training() -> None:
    """TSV with a header may quote cells, and CSV may have semicolons, as `lab.data.readers`."""
    assert read(PAIRS, "tsv", 'text\tpair\n"a ""b"""\tc\n') == [InputText('a "b"', "c")]
    assert read(PAIRS, "tsv", '"a\tb"\n') == [InputText('"a', 'b"')], "nothing is quoted here"
    assert read(PAIRS, "csv", "text ; pair;label\na, b;c;yes\n") == [InputText("a, b", "c", "yes")]


def test_csv_records_may_span_lines() -> None:
    rows = list(SINGLE.read([b"text\n", b'"two\n', b'lines"\n', b"one\n"], "csv"))
    assert [(one.line, one.row) for one in rows] == [
        (2, InputText("two\nlines")),
        (4, InputText("one")),
    ]


@pytest.mark.parametrize(
    ("reader", "kind", "content", "says"),
    [
        (SINGLE, "lines", b"fine\nb\xff\nc", "line 2: byte 2 is not UTF-8"),
        (SINGLE, "lines", "fine\n" + "x" * (MAX_TEXT_CHARS + 1), "at most 20,000"),
        (SINGLE, "csv", b"text\nfine\nb\xff\n", "line 3: byte 2 is not UTF-8"),
        (SINGLE, "csv", 'text\nfine\n"open', "line 3: is not well-formed"),
        (SINGLE, "csv", "text,label\nfine,\nfine\n", "has 1 column; the header has 2"),
        (PAIRS, "tsv", "a\tb\na\n", "line 2: has 1 of the columns that tabs separate; give text, "),
        (SINGLE, "jsonl", '{"text": "a"}\nfine', "line 2: is not JSON"),
        (SINGLE, "jsonl", '{"text": "a"}\n["fine"]', "line 2: is not a JSON object"),
        (SINGLE, "jsonl", "[" * 100_000, "line 1: is not JSON"),
        (SINGLE, "jsonl", "{}", "it has no field"),
        (SINGLE, "jsonl", '{"text": 3}', "text: must be a string, not int"),
        (SINGLE, "jsonl", '{"text": " "}', "text: is empty"),
        (SINGLE, "jsonl", r'{"text": "\ud800"}', "lone surrogate"),
        (SINGLE, "jsonl", '{"text": "a", "pair": "b"}', "takes single texts"),
        (SINGLE, "jsonl", '{"sentence": "a"}', "has no field 'text' (it has sentence); name"),
        (SINGLE, "jsonl", '{"text": "a", "label": "gut"}', "(schlecht, très bien)"),
        (SINGLE, "jsonl", '{"text": "a", "label": 2}', "has the label '2'"),
        (SINGLE, "jsonl", '{"text": "a", "label": -1}', "has the label '-1'"),
        (PAIRS, "jsonl", '{"text": "a", "pair": null}', "pair: must be a string"),
        (PAIRS, "jsonl", '{"text": "a"}', "'text' and 'pair' (it has text)"),
    ],
)
def test_wrong_line_is_an_error_and_the_others_are_read(
    reader: TextReader, kind: TextFormat, content: str | bytes, says: str
) -> None:
    found = read(reader, kind, content)
    errors = [one for one in found if isinstance(one, str)]
    assert len(errors) == 1
    assert says in errors[0]
    expected = content.count(b"\n" if isinstance(content, bytes) else "\n") + 1
    assert len(found) >= min(expected, 2) - (kind == "csv")


def test_error_keeps_its_class() -> None:
    (one,) = SINGLE.read([b"x" * (MAX_TEXT_CHARS + 1)], "lines")
    assert isinstance(one.error, TooLarge)


def test_header_that_lacks_a_field_ends_the_reading() -> None:
    for kind in ("csv", "tsv"):
        reader = TextReader(pairs=False, fields=(FieldNames(text="title"),))
        with pytest.raises(InvalidInput, match=r"no field 'title' \(it has body, id\); name"):
            read(reader, kind, "body,id\nfine,1\n".replace(",", "\t" if kind == "tsv" else ","))


def test_header_with_two_columns_of_one_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match="two columns 'text'"):
        read(SINGLE, "csv", "text,text\na,b\n")


def test_first_line_may_be_long_and_labels_may_be_long_numbers() -> None:
    long = "x" * 200_000
    assert "at most 20,000" in str(read(SINGLE, "tsv", f"{long}\nfine\n")[0])
    with pytest.raises(InvalidInput, match="has no field 'text'"):
        read(SINGLE, "csv", f"{long}\nfine\n")
    with pytest.raises(InvalidInput, match="none of the bundle's"):
        find_label("1" * 5_000, ("no", "yes"))


def test_pairs_cannot_be_plain_lines() -> None:
    with pytest.raises(InvalidInput, match="TSV"):
        PAIRS.read([b"a"], "lines")


def test_first_names_that_are_present_are_used() -> None:
    reader = TextReader(
        pairs=False, labels=("no", "yes"), fields=(FieldNames("title", "", "y"), FieldNames())
    )
    rows = read(reader, "jsonl", '{"title": "a", "text": "b", "y": 1}\n{"text": "b", "label": 0}')
    assert rows == [InputText("a", None, "yes"), InputText("b", None, "no")]


def test_label_may_be_required() -> None:
    reader = TextReader(pairs=False, labels=("no", "yes"), label_required=True)
    assert read(reader, "jsonl", '{"text": "a"}') == ["line 1: has no label in 'label'"]


def test_labels_are_left_unread_without_those_of_the_bundle() -> None:
    reader = TextReader(pairs=False)
    assert read(reader, "jsonl", '{"text": "a", "label": "any"}') == [InputText("a")]
    assert "give text" in str(read(reader, "tsv", "a\tany\n")[0])


@pytest.mark.parametrize(
    ("value", "labels", "expected"),
    [
        ("yes", ("no", "yes"), "yes"),
        (1, ("no", "yes"), "yes"),
        ("1", ("no", "yes"), "yes"),
        (2, ("1", "2", "3"), "2"),
        ("10", ("10", "20"), "10"),
        (" yes ", ("no", "yes"), "yes"),
        (1.0, ("no", "yes"), "yes"),
        (True, ("false", "true"), "true"),
        (None, ("no", "yes"), None),
        ("", ("no", "yes"), None),
    ],
)
def test_label_is_a_name_or_a_number(
    value: object, labels: tuple[str, ...], expected: str | None
) -> None:
    assert find_label(value, labels) == expected


@pytest.mark.parametrize(
    ("value", "labels"),
    [(0, ("1", "2")), (2, ("no", "yes")), (True, ("no", "yes")), (-1, ("no", "yes"))],
)
def test_unknown_label_is_refused(value: object, labels: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="none of the bundle's"):
        find_label(value, labels)


def test_format_follows_the_suffix(tmp_path: Path) -> None:
    found = {suffix: PAIRS.format_of(Path(f"a{suffix}")) for suffix in (".csv", ".TSV", ".ndjson")}
    assert found == {".csv": "csv", ".TSV": "tsv", ".ndjson": "jsonl"}
    assert (PAIRS.format_of(), SINGLE.format_of(), SINGLE.format_of(Path("a.txt"))) == (
        "tsv", "lines", "lines",
    )  # fmt: skip


def test_file_without_lines_of_text_is_refused(tmp_path: Path) -> None:
    (file := tmp_path / "texts.Parquet").write_bytes(b"PAR1\xff")
    with pytest.raises(InvalidInput, match=r"^texts: \S+ holds no lines of text; save it as CSV"):
        SINGLE.read_file(file)


def test_file_is_read_whole_or_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"text": "fine"}) + "\n")
    assert SINGLE.read_file(file) == [InputText("fine")]
    file.write_text('{"text": "fine"}\n{}\n')
    with pytest.raises(InvalidInput, match=r"texts\.jsonl line 2: has no field 'text'"):
        SINGLE.read_file(file)
    file.write_text("\n")
    with pytest.raises(InvalidInput, match="has no text"):
        SINGLE.read_file(file)
    with pytest.raises(InvalidInput, match="cannot be read"):
        SINGLE.read_file(tmp_path / "none")
