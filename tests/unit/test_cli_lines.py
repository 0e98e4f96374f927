"""Lines, terminals and files of ``dimee classify``: one row for each line, and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.wire import MAX_TEXTS
from tests.support.paths import BUNDLE, REPOSITORY

DIMEE = Path(sys.executable).parent / "dimee"
ONE_TEXT_A_LINE = (
    "a wonderful film\f a joy\v\x85\u2028\u2029\x1c\rit is lovely\r\n\nan ugly, lifeless mess"
)


def classify(
    *arguments: str, stdin: bytes = b"", **variables: str | None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``dimee classify`` on the mobile alone; a variable that is None is unset."""
    given = {"DIMEE_BUNDLE": str(BUNDLE), "PYTHONPATH": str(REPOSITORY)} | variables
    unset = {name for name, value in given.items() if value is None}
    environment = {name: value for name, value in (os.environ | given).items() if value}
    return subprocess.run(
        [DIMEE, "classify", "--mode", "only-on-device", *arguments],
        env={name: value for name, value in environment.items() if name not in unset},
        input=stdin,
        capture_output=True,
        check=False,
        timeout=300,
    )


def objects(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    """Return the JSON objects of the output, one from each line."""
    lines = done.stdout.decode().split("\n")
    assert lines.pop() == "", done.stderr
    return [json.loads(line) for line in lines]


def test_only_line_feeds_end_a_line_and_blank_lines_keep_their_place() -> None:
    done = classify("-", "--json", stdin=ONE_TEXT_A_LINE.encode())
    rows = objects(done)
    assert [(row["index"], row["line"], row.get("label")) for row in rows] == [
        (0, 1, "positive"),
        (1, 2, None),
        (2, 3, "negative"),
    ]
    assert rows[1]["error"]["message"] == "line 2: is empty"
    assert (done.returncode, b"1 of 3 rows are not valid" in done.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [(), ("--input-format", "jsonl"), ("--texts", "/dev/stdin")])
def test_each_line_of_a_slow_pipe_is_answered_before_the_next_is_sent(
    arguments: tuple[str, ...],
) -> None:
    source = () if "--texts" in arguments else ("-",)
    line = b'{"text": "a fine film"}\n' if "jsonl" in arguments else b"a fine film\n"
    process = subprocess.Popen(
        [DIMEE, "classify", "--mode", "only-on-device", "--json", *source, *arguments],
        env=os.environ | {"DIMEE_BUNDLE": str(BUNDLE), "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:  # a command that waits for more than one line ends in the suite's time limit
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (1, 2, 3):
            process.stdin.write(line)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["line"] == number
        process.stdin.close()
        assert process.wait(timeout=300) == 0


@pytest.mark.parametrize("wrong", [b"", b"\xff\xfe\xfa", b"x" * 20_001, b"x" * 9_000_000, b"a\0b"])
def test_one_wrong_line_of_many_loses_no_other_answer(wrong: bytes) -> None:
    lines = [b"fine"] * (MAX_TEXTS + 30)
    lines[MAX_TEXTS + 10] = wrong
    done = classify("-", "--json", stdin=b"\n".join(lines))
    rows = objects(done)
    assert [row["index"] for row in rows] == list(range(len(lines)))
    assert [row["index"] for row in rows if "error" in row] == [MAX_TEXTS + 10]
    assert done.returncode == 2


def test_one_wrong_text_of_the_command_line_loses_no_other_answer() -> None:
    texts = ["fine"] * (MAX_TEXTS + 3)
    texts[MAX_TEXTS + 1] = " "
    done = classify("--json", "--", *texts)
    rows = json.loads(done.stdout)
    assert [row["index"] for row in rows] == list(range(len(texts)))
    assert [row["index"] for row in rows if "error" in row] == [MAX_TEXTS + 1]
    assert f"1 of {len(texts):,} rows are not valid; text {MAX_TEXTS + 2}: ".encode() in done.stderr
    assert done.returncode == 2


def test_open_quote_in_csv_hides_only_its_own_record() -> None:
    content = 'text\nfine\n"open\nugly\n"dull" and more\n"two\nlines"\n'
    done = classify("-", "--json", "--input-format", "csv", stdin=content.encode())
    assert [(row["line"], "error" in row) for row in objects(done)] == [
        (2, False),
        (3, True),
        (4, False),
        (5, True),
        (6, False),
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_encodings_are_named(encoding: str) -> None:
    done = classify("-", "--json", stdin="fine\n".encode(encoding))
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"is {encoding.upper()}; save it as UTF-8".encode() in done.stderr


LATIN_1: dict[str, str | None] = {"PYTHONIOENCODING": "latin-1"}
ASCII: dict[str, str | None] = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": None,
}


@pytest.mark.parametrize("terminal", [LATIN_1, ASCII], ids=["latin-1", "ascii"])
def test_terminal_without_utf_8_shows_words_for_signs(terminal: dict[str, str | None]) -> None:
    text = "a gripping → film, 素晴らしい 😀"
    done = classify(text, **terminal)
    assert done.returncode == 0, done.stderr
    assert b"cost lambda" in done.stdout
    assert b"a gripping -> film, \\u7d20" in done.stdout
    assert done.stdout.isascii()
    as_json = classify("-", "--json", stdin=text.encode(), **terminal)
    assert objects(as_json)[0]["label"] == "positive"


@pytest.mark.parametrize("command", ["classify", "load", "train", "explain", "up", "ledger"])
@pytest.mark.parametrize("terminal", [LATIN_1, ASCII], ids=["latin-1", "ascii"])
def test_help_of_a_terminal_without_utf_8_is_printed(
    command: str, terminal: dict[str, str | None]
) -> None:
    variables = {name: value for name, value in terminal.items() if value is not None}
    done = subprocess.run(
        [DIMEE, command, "--help"],
        env=os.environ | variables | {"COLUMNS": "20", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_text_cannot_control_the_terminal() -> None:
    text = "fine \x1b]0;title\x07\x1b[2J \x9b2J \u202eevil\u2066 \x08\x7f"
    for arguments in ((), ("--json",)):
        done = classify("-", *arguments, stdin=f"{text}\n{text}".encode() + b"\xff")
        printed = (done.stdout + done.stderr).decode()
        assert not any(char in printed for char in "\x1b\x07\x9b\x08\x7f\u202e\u2066")


def in_shell(command: str, state_dir: Path) -> subprocess.CompletedProcess[bytes]:
    settings = {
        "DIMEE_BUNDLE": str(BUNDLE),
        "DIMEE_STATE_DIR": str(state_dir),
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        ["bash", "-c", command],
        env=os.environ | settings,
        capture_output=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("redirection", [">&-", "<&-", "2>&-", ">/dev/full"])
def test_closed_and_full_streams_end_without_a_traceback(redirection: str, tmp_path: Path) -> None:
    command = f'echo fine | "{DIMEE}" classify --mode only-on-device --json - {redirection}'
    done = in_shell(command, tmp_path)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert done.stderr.count(b"\n") <= 1
    assert (done.returncode == 2) == (redirection in ("<&-", ">/dev/full"))


def test_reader_that_goes_away_ends_the_command_silently(tmp_path: Path) -> None:
    command = f'yes fine | head -n 3000 | "{DIMEE}" classify --mode only-on-device - | head -n 1'
    done = in_shell(command, tmp_path)
    assert (done.stdout.split()[:1], done.stderr) == ([b"text"], b"")


UNKNOWN_USER = """
import pwd, sys
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
from mobile_client.cli.main import main
sys.argv[0] = "dimee"
main()
"""
"""The command of a user that the system does not know."""


@pytest.mark.parametrize("arguments", [(), ("--bundle", "~/bundle")])
def test_user_without_a_home_folder_gets_an_answer_or_one_sentence(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        inherited = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", UNKNOWN_USER, "classify", "--mode", "only-on-device"]
        return subprocess.run(
            [*command, "fine", *arguments],
            env=inherited | {"DIMEE_BUNDLE": str(BUNDLE)} | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    without = run(*arguments)
    assert without.returncode == 2
    assert without.stderr.startswith("dimee: settings: there is no home folder")
    assert without.stderr.count("\n") == 1
    with_folder = run(DIMEE_STATE_DIR=str(tmp_path / "state"))
    assert (with_folder.returncode, with_folder.stderr) == (0, "")
