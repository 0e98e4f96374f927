"""Printed text: no character controls the terminal, and every terminal can show it."""

from __future__ import annotations

import io
import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_client.cli import status
from mobile_client.cli.render import MIN_TEXT_WIDTH, TEXT_WIDTH, header, row
from shared.errors import InvalidInput
from shared.terminal import (
    ProtectedStream,
    encodable,
    escape_controls,
    one_line,
    progress_stream,
    protect_output,
)

DIRECTIONS = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
FIGURES_WIDTH = 51
"""Columns of a row without its text."""
ENCODINGS = ("ascii", "latin-1", "cp1252", "cp437", "koi8-r", "utf-8")


def controls(text: str) -> set[str]:
    """Return the characters of ``text`` that could control a terminal, but tab and line feed."""
    kinds = ("Cc", "Cs", "Zl", "Zp")
    return {
        char for char in text if unicodedata.category(char) in kinds or char in DIRECTIONS
    } - set("\t\n")


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    assert not controls(escape_controls(text))
    assert not controls(one_line(text))
    assert not set(one_line(text)) & set("\t\n")
    if not controls(text):
        assert escape_controls(text) == text


@given(st.text(), st.sampled_from(ENCODINGS))
def test_every_encoding_can_show_the_output_and_json_keeps_its_meaning(
    text: str, encoding: str
) -> None:
    shown = encodable(escape_controls(json.dumps([text], ensure_ascii=False)), encoding)
    shown.encode(encoding)
    if not set(text) & set("λΛαγμµ→←◄►≥≤≈≠×±−–—…·•‘’“”✓✗─│█▏°"):
        assert json.loads(shown) == [text]


def test_signs_of_the_tables_have_words() -> None:
    assert encodable("λ → ◄ ≥ α … ─│", "ascii") == "lambda -> < >= alpha ... -|"
    assert encodable("é λ", "latin-1") == "é lambda"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_protected_stream_writes_to_every_terminal(encoding: str) -> None:
    raw = io.BytesIO()
    stream = ProtectedStream(io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    stream.write("λ → \x1b[31m\ud800\n")
    stream.writelines(["a\r", "\u202eb"])
    printed = raw.getvalue().decode(encoding)
    assert printed.endswith("\\u001b[31m\\ud800\na\\u000d\\u202eb")
    with pytest.raises(TypeError):
        stream.write(b"")  # type: ignore[arg-type]


def test_output_is_protected_once_and_progress_bars_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    monkeypatch.setattr(sys, "stdout", None)
    protect_output()
    protect_output()
    assert isinstance(sys.stderr, ProtectedStream)
    assert progress_stream() is sys.stderr.unprotected is plain
    assert sys.stdout is None


@pytest.mark.parametrize("columns", [1, 20, 60, 80, 200])
def test_table_fits_a_narrow_terminal_as_far_as_its_figures_do(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert len(header()) <= max(columns, FIGURES_WIDTH + MIN_TEXT_WIDTH)
    text = row("a" * 100, InvalidInput("x"), "b" * 100).partition("  ")[0]
    assert min(MIN_TEXT_WIDTH, TEXT_WIDTH) <= len(text) <= TEXT_WIDTH


def test_message_of_a_server_stays_in_its_row() -> None:
    printed = row("fine", InvalidInput("a\nb\x1b[2J"))
    assert not controls(printed)
    assert "\n" not in printed


def test_status_of_a_strange_process_stays_in_its_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = "a\nb\x1b[2J\u202e"
    body = {"bundle_id": evil, "policy": {"x": evil}, "store": [evil], "layers": 1e300}
    process = status.ProcessStatus("http://x", body)
    down = status.ProcessStatus("http://x", {}, evil)
    status.show(status.Status({"edge": process, "cloud": down}, None, [evil]))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 3
    assert not controls(printed)
