"""The pages of docs/reference are current, and explain every setting and every option."""

from __future__ import annotations

import re

import pytest

from tests.support.reference import REFERENCE, commands_page, options, settings, settings_page

UNITS = {
    "ms": "millisecond|ms",
    "lambda": "λ",
    "cost": "λ",
    "mbps": "megabit",
    "days": "day",
    "seconds": "second",
    "duration": "second",
    "minutes": "minute",
    "rate": "second|learning",
}
"""The last word of a name → a regular expression of the unit that its meaning states."""

MEANINGS = [
    *((f"{kind.__name__}.{name}", meaning) for _, kind, name, _, meaning in settings()),
    *(
        (f"{words} {option.opts[-1]}", (option.help or "").partition("[default: ")[0].strip())
        for words, _, own in options()
        for option in own
    ),
]


@pytest.mark.parametrize(
    ("page", "current"), [("settings.md", settings_page), ("commands.md", commands_page)]
)
def test_reference_page_is_current(page: str, current: object) -> None:
    assert callable(current)
    written = (REFERENCE / page).read_text(encoding="utf-8")
    assert written == current(), f"{page} is out of date: run make reference"
    assert "Undefined" not in written, "name the computed default in tests/support/reference.py"


def test_every_setting_and_option_has_a_meaning() -> None:
    missing = [name for name, meaning in MEANINGS if not re.match(r"\S.*\.$", meaning, re.S)]
    assert not missing, "each needs a docstring or a help text that ends with a full stop"


def test_every_meaning_states_the_unit() -> None:
    missing = []
    for name, meaning in MEANINGS:
        unit = UNITS.get(re.split(r"[-_. ]", name)[-1])
        if unit and not re.search(unit, meaning, re.I):
            missing.append(name)
    assert not missing
