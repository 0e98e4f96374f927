"""Writes ``unicode-categories.js``: the characters that Python's tokenizers treat specially.

The crate ``tokenizers`` knows the categories of Unicode 8, and browsers those of their own version.
With the crate's sets, every browser gives the same tokens as Python. Run it after an upgrade of
``tokenizers``::

    python -m tests.web.unicode_categories
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from tests.support.paths import REPOSITORY

FILE = REPOSITORY / "mobile_client/web/static/js/core/unicode-categories.js"
CHARACTERS = [*range(0xD800), *range(0xE000, 0x20000), *range(0xE0000, 0xF0000)]
"""Code points of all planes that hold such characters; planes 15 and 16 are private use."""
PRIVATE = r"\u{f0000}-\u{ffffd}\u{100000}-\u{10fffd}"
LINE_CHARS = 90

HEAD = """\
// Sets of characters as the tokenizers of Python know them, those of Unicode 8: a browser's
// own sets are newer. Written by tests/web/unicode_categories.py; do not edit.
"""


def removed() -> Iterator[int]:
    """Yield the characters that cleaning a text removes: control, format and private use."""
    clean = BertNormalizer(True, False, False, False)
    return _matching(lambda text: clean.normalize_str(text) == "ab")


def marks() -> Iterator[int]:
    """Yield the characters that stripping accents removes: nonspacing marks."""
    strip = BertNormalizer(False, False, True, False)
    return _matching(lambda text: strip.normalize_str(text) == "ab")


def punctuation() -> Iterator[int]:
    """Yield the characters that are words of their own."""
    split = BertPreTokenizer()
    return _matching(lambda text: len(split.pre_tokenize_str(text)) == 3)


def content() -> str:
    """Return the file's content."""
    sets = {
        "REMOVED": ("removed in cleaning: control, format and private use", removed(), PRIVATE),
        "MARKS": ("nonspacing marks, removed with accents", marks(), ""),
        "PUNCTUATION": ("words of their own", punctuation(), ""),
    }
    parts = [HEAD]
    for name, (meaning, members, more) in sets.items():
        lines = _lines(f"{''.join(_ranges(members))}{more}")
        joined = " +\n".join(f'  "{line}"' for line in lines)
        parts.append(f"/** Characters that are {meaning}. */\nexport const {name} =\n{joined};\n")
    return "\n".join(parts).replace("\\", "\\\\")


def _matching(test: Callable[[str], bool]) -> Iterator[int]:
    return (code for code in CHARACTERS if test(f"a{chr(code)}b"))


def _ranges(codes: Iterable[int]) -> Iterator[str]:
    """Yield the parts of a character class of a regular expression."""
    first = last = None
    for code in codes:
        if last is not None and code == last + 1:
            last = code
            continue
        if first is not None and last is not None:
            yield _range(first, last)
        first = last = code
    if first is not None and last is not None:
        yield _range(first, last)


def _range(first: int, last: int) -> str:
    return f"\\u{{{first:x}}}" + (f"-\\u{{{last:x}}}" if last > first else "")


def _lines(text: str) -> Iterator[str]:
    """Cut a class into lines, between its parts."""
    line = ""
    for part in text.replace("\\u", " \\u").replace("- ", "-").split():
        if len(line) + len(part) > LINE_CHARS:
            yield line
            line = ""
        line += part
    yield line


if __name__ == "__main__":
    FILE.write_text(content(), encoding="utf-8")
