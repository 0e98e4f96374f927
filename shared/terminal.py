"""Output of a command: no character of it can control a terminal or fail to be written.

`protect_output` is called once, when a command starts. It covers all that the command prints: its
own words, texts and labels from data, names of files and bundles, and messages of servers.
"""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO

from shared.redaction import redact

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 controls but tab and line feed; line and paragraph separators; embeddings, overrides
and isolates of the writing direction; surrogates."""
_CONTROLS_AND_LINE_ENDS = re.compile(f"[\t\n]|{_CONTROLS.pattern}")
_REPLACEMENTS = {
    "λ": "lambda", "Λ": "Lambda", "α": "alpha", "γ": "gamma", "μ": "u", "µ": "u", "→": "->",
    "←": "<-", "◄": "<", "►": ">", "≥": ">=", "≤": "<=", "≈": "~", "≠": "!=", "×": "x", "±": "+-",
    "−": "-", "–": "-", "—": "-", "…": "...", "·": ".", "•": "*", "‘": "'", "’": "'", "“": '"',
    "”": '"', "✓": "yes", "✗": "no", "─": "-", "│": "|", "█": "#", "▏": "|", "°": " deg",
}  # fmt: skip
"""Text for a character that the encoding of a terminal lacks."""


def escape_controls(text: str) -> str:
    """Return ``text`` with ``\\uXXXX`` in place of each character that could control a terminal.

    Tabs and line feeds stay. Within a JSON string, the result means the same.
    """
    return _CONTROLS.sub(_escape, text)


def one_line(text: str) -> str:
    """Return ``text`` as one line: also tabs and line ends are escaped.

    Use it for a name, label or message from elsewhere that is printed inside a line.
    """
    return _CONTROLS_AND_LINE_ENDS.sub(_escape, text)


def without_controls(text: str, replacement: str = "\ufffd") -> str:
    """Return ``text`` with one sign in place of each such character, for a cell of a table."""
    return _CONTROLS_AND_LINE_ENDS.sub(replacement, text)


def encodable(text: str, encoding: str) -> str:
    """Return ``text`` with a replacement for each character that ``encoding`` lacks.

    λ becomes ``lambda``, → becomes ``->``; others are escaped as in JSON.
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_encodable(char, encoding) for char in text)
    return text


def displayed(text: str) -> str:
    """Return ``text`` as standard output shows it, for the width of a column."""
    stream: Any = sys.stdout
    if isinstance(stream, ProtectedStream):
        stream = stream.unprotected
    return encodable(text, getattr(stream, "encoding", None) or "utf-8")


def protect_output() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` escape what could control a terminal."""
    if sys.stdout is not None and not isinstance(sys.stdout, ProtectedStream):
        sys.stdout = ProtectedStream(sys.stdout)
    if sys.stderr is not None and not isinstance(sys.stderr, ProtectedStream):
        sys.stderr = ProtectedStream(sys.stderr, redacts=True)


def progress_stream() -> TextIO:
    """Return standard error for a progress bar, which moves the cursor."""
    stream: Any = sys.stderr
    return stream.unprotected if isinstance(stream, ProtectedStream) else stream


class ProtectedStream:
    """Text stream that escapes control characters and those that its encoding lacks.

    A terminal with a limited encoding, or without one (``LC_ALL=C``), never raises an error. With
    ``redacts``, credentials are left out: logs and tracebacks may contain addresses with them.
    """

    def __init__(self, stream: TextIO, redacts: bool = False) -> None:
        self.unprotected = stream
        self._redacts = redacts
        self._encoding = stream.encoding or "utf-8"

    @property
    def encoding(self) -> str:
        """UTF-8 for ASCII, of which it is an extension; click would replace a stream of ASCII."""
        return "utf-8" if _is_ascii(self._encoding) else self._encoding

    def write(self, text: str) -> int:
        """Write ``text``, and return its length."""
        shown = redact(text) if self._redacts else text
        self.unprotected.write(encodable(escape_controls(shown), self._encoding))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unprotected, name)


def _is_ascii(encoding: str) -> bool:
    return encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968", "646")


def _encodable(char: str, encoding: str) -> str:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return _REPLACEMENTS.get(char) or _escape(char)
    return char


def _escape(char: str | re.Match[str]) -> str:
    """Return the escape that JSON has for a character."""
    char = char if isinstance(char, str) else char[0]
    if char in "\t\n":
        return "\\t" if char == "\t" else "\\n"
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
