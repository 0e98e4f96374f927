"""Text files that a user wrote: UTF-8 with or without a byte order mark, and their lines.

A line ends with a line feed, or with a carriage return and a line feed. All other characters
belong to the line, also those at which `str.splitlines` splits: a lone carriage return, form feed,
vertical tab, U+0085, U+2028 and U+2029.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from shared.errors import InvalidInput
from shared.files import read_limited

MAX_LINE_BYTES = 4 * 1024 * 1024
"""Longest line that is read as one; of a longer one, `bounded_lines` gives the beginning."""
MAX_FILE_BYTES = 256 * 1024 * 1024
"""Largest file that `read_text` reads."""
BYTE_ORDER_MARK = "\ufeff"
_OTHER_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""First bytes of files in other encodings of Unicode."""


def other_encoding(start: bytes) -> str | None:
    """Return UTF-16 or UTF-32 if a file that begins with ``start`` is in that encoding."""
    marks = (mark for mark in _OTHER_ENCODINGS if start.startswith(mark))
    return _OTHER_ENCODINGS.get(next(marks, b""))


def refuse_other_encoding(start: bytes, source: str) -> None:
    """Raise `InvalidInput` if the first bytes of ``source`` are those of UTF-16 or UTF-32."""
    if encoding := other_encoding(start):
        raise InvalidInput(f"{source} is {encoding}; save it as UTF-8")


def decode(content: bytes, source: str) -> str:
    """Return the text without its byte order mark; ``source`` begins the message of an error.

    Raises `InvalidInput` for content that is not UTF-8.
    """
    refuse_other_encoding(content[:4], source)
    try:
        return content.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidInput(
            f"{source} line {line} is not UTF-8 (byte {error.start + 1} of the file); save it as "
            "UTF-8"
        ) from None


def read_text(file: Path, field: str) -> str:
    """Return the content of ``file``; an error's message begins with ``field``.

    Raises `InvalidInput` if the file cannot be read or is not UTF-8.
    """
    try:
        content = read_limited(file, MAX_FILE_BYTES)
    except OSError as error:
        raise InvalidInput(f"{field}: {file} cannot be read ({error.strerror})") from None
    return decode(content, f"{field}: {file}")


def split_lines(text: str) -> list[str]:
    """Return the lines of a text without their ends."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def without_line_end(line: str) -> str:
    """Return a line without its line feed, and without the carriage return before it."""
    return line.removesuffix("\n").removesuffix("\r")


def bounded_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a binary file with their ends, or of any other iterable.

    Of a line of a file that is longer than `MAX_LINE_BYTES`, the first `MAX_LINE_BYTES` + 1 bytes
    are yielded, so that no line fills the memory.
    """
    readline = getattr(lines, "readline", None)
    if readline is None:
        yield from lines
        return
    while line := readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = readline(MAX_LINE_BYTES + 1)
