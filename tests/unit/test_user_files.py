"""Files that a user wrote, in every format: byte order mark, other encodings, line ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.data.readers import read_table
from lab.data.task_file import resolve_task
from shared.domain import InputText
from shared.errors import DimeeError
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.transfer import export_entries, import_entries
from shared.pricing.live_prices import read_price_file
from shared.row_files import records
from shared.serving.tokens import new_token, read_tokens
from shared.text_files import TextReader
from shared.user_files import MAX_LINE_BYTES, bounded_lines, decode, split_lines
from testbed.links.schedule import read_schedule
from testbed.links.traces import read_trace
from testbed.load.arrivals import from_trace

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OTHER_LINE_ENDS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""Characters at which `str.splitlines` splits, and files do not."""


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [row.values for row in read_table(file).rows]


def texts_of(file: Path) -> list[InputText]:
    return TextReader(pairs=False).read_file(file)


def import_csv(file: Path) -> int:
    return import_entries(LedgerStore("sqlite://"), file).stored


def task_of(file: Path) -> Any:
    (file.parent / "train.csv").write_text("text,label\na,x\nb,y\n")
    return resolve_task(str(file.parent), {})[0]


READERS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "texts": ("texts.txt", "fine\nugly\n", texts_of),
    "texts in TSV": ("texts.tsv", "text\tid\nfine\t1\n", texts_of),
    "texts in CSV": ("texts.csv", "text,id\nfine,1\n", texts_of),
    "texts in JSON lines": ("texts.jsonl", '{"text": "fine"}\n', texts_of),
    "data in CSV": ("data.csv", "text,label\nfine,yes\n", rows_of),
    "data in TSV": ("data.tsv", "text\tlabel\nfine\tyes\n", rows_of),
    "data in JSON lines": ("data.jsonl", '{"text": "fine"}\n', rows_of),
    "task": ("task.json", '{"text_field": "text"}', task_of),
    "price book": ("prices.json", '{"version": "x"}', read_price_file),
    "arrivals": ("arrivals.txt", "0.5\n1\n", lambda file: from_trace(file, 60)),
    "trace": ("link.trace", "1\n2\n", lambda file: read_trace(file).mean_mbps),
    "schedule": ("link.txt", "0 4g\n40 wifi\n", lambda file: read_schedule(f"@{file}")),
}


@pytest.mark.parametrize("kind", READERS)
def test_byte_order_mark_and_carriage_returns_change_nothing(kind: str, tmp_path: Path) -> None:
    name, content, read = READERS[kind]
    file = tmp_path / name
    file.write_bytes(content.encode())
    expected = read(file)
    for variant in (content, content.replace("\n", "\r\n"), content.removesuffix("\n")):
        file.write_bytes(BYTE_ORDER_MARK + variant.encode())
        assert read(file) == expected


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "task"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_file_in_another_encoding_is_one_sentence(kind: str, encoding: str, tmp_path: Path) -> None:
    name, content, read = READERS[kind]
    (tmp_path / name).write_bytes(content.encode(encoding))
    with pytest.raises(DimeeError, match=f"is {encoding.upper()}; save it as UTF-8"):
        read(tmp_path / name)


def test_tokens_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    file = tmp_path / "tokens.jsonl"
    new_token(file, "a", ["infer"])
    expected = read_tokens(file)
    file.write_bytes(BYTE_ORDER_MARK + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_tokens(file) == expected


def test_export_of_the_ledger_that_a_spreadsheet_saved_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "entries.csv"
    export_entries(LedgerStore("sqlite://"), file)
    file.write_bytes(BYTE_ORDER_MARK + file.read_bytes())
    assert import_csv(file) == 0


@pytest.mark.parametrize("char", OTHER_LINE_ENDS)
def test_only_line_feeds_end_lines(char: str, tmp_path: Path) -> None:
    text = f"a{char}b"
    contents = {
        "texts.txt": f"{text}\nc\n",
        "texts.tsv": f"{text}\nc\n",
        "texts.csv": f"text,id\n{text},1\nc,2\n",
        "texts.jsonl": f'{json.dumps({"text": text}, ensure_ascii=False)}\n{{"text": "c"}}\n',
    }
    for name, content in contents.items():
        file = tmp_path / name
        file.write_text(content, newline="")
        assert [row.text for row in texts_of(file)] == [text, "c"], name
        if name != "texts.txt" and name != "texts.tsv":
            assert [row["text"] for row in rows_of(file)] == [text, "c"], name
    assert split_lines(f"{text}\r\n{text}\n\nend") == [text, text, "", "end"]


def test_lone_carriage_return_stays_in_a_plain_line() -> None:
    rows = list(TextReader(pairs=False).read([b"a\rb\r\r\n"], "lines"))
    assert rows[0].row == InputText("a\rb\r")


def test_line_without_end_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    long = b"x" * (3 * MAX_LINE_BYTES)
    file.write_bytes(b"a\n" + long + b"\nb\n" + long)
    with file.open("rb") as lines:
        found = list(bounded_lines(lines))
    assert [len(line) for line in found] == [2, MAX_LINE_BYTES + 1, 2, MAX_LINE_BYTES + 1]


def test_blank_lines_are_rows_where_the_output_must_match_the_lines() -> None:
    reader = TextReader(pairs=False)
    for kind, one in (("lines", b"a"), ("tsv", b"a"), ("jsonl", b'{"text": "a"}')):
        lines = [b"\n", b" \r\n", one + b"\n", b"\n", one]
        found = list(reader.read(lines, kind, blank_rows=True))  # type: ignore[arg-type]
        assert [(row.line, row.row is None) for row in found] == [
            (1, True),
            (2, True),
            (3, False),
            (4, True),
            (5, False),
        ]
        assert [row.line for row in reader.read(lines, kind)] == [3, 5]  # type: ignore[arg-type]


def test_wrong_record_is_read_again_from_its_second_line() -> None:
    lines = ["a,b\n", '"x,1\n', "y,2\n", '"z"z,3\n', '"two\n', 'lines",4\n']
    found = [
        (number, cells if isinstance(cells, list) else None)
        for number, cells in records(lines, ",")
    ]
    assert found == [
        (1, ["a", "b"]),
        (2, None),
        (3, ["y", "2"]),
        (4, None),
        (5, ["two\nlines", "4"]),
    ]


def test_byte_that_is_not_utf_8_is_named_with_its_line() -> None:
    with pytest.raises(DimeeError, match=r"^f: x line 2 is not UTF-8 \(byte 3 of the file\)"):
        decode(b"a\n\xff", "f: x")
