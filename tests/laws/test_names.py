"""Names that the project replaced by standard terms stay replaced, in code and in prose."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY
from tests.support.tracked import tracked

WORDS = {
    "door": "auth",
    "doors": "auth",
    "visitor": "principal",
    "discretion": "redact",
    "presence": "disconnect",
    "plumbing": "server, responses, error handlers",
    "booked": "recorded",
    "booking": "recording, group commit",
    "bookkeeper": "attempt recorder",
    "crowd": "concurrency limit",
    "revive": "restart after",
    "tariff": "live prices",
    "unlearning": "stateless policy",
    "soup": "weight averaging",
    "temper": "fit temperatures",
    "rival": "baseline",
    "rivals": "baselines",
    "duel": "comparison",
    "duels": "comparisons",
    "nonsense": "malformed",
    "victim": "fault injector",
    "bed": "testbed",
    "beds": "testbeds",
    "phone": "mobile",
    "phones": "mobiles",
    "rooms": "packages, folders",
    "nobody": "no caller, no process",
    "somebody": "the caller, the tier",
    "whoever": "the caller, a client that",
    "requester": "request runner",
}
"""Word, alone or as a part of an identifier → what to write instead."""

PHRASES = {
    r"ground floor": "shared",
    r"--unlabelled\b|\bunlabelled links?\b": "unverified",
    r"(?<!of )\bcourse\b": "request state",
    r"\blane\b": "infer endpoint",
    r"\bno_open_end\b": "ensure_closed",
    r"\bDIMEE_MS_LAMBDA\b": "DIMEE_LATENCY_PRICE_LAMBDA",
    r"\bDIMEE_THREADS\b of (a|the) (tier|edge|cloud)": "DIMEE_WORKERS",
    r"\bms[-_]price\b": "latency price",
    r"\bms_lambda\b": "latency_price_lambda",
    r"\bdimee (mix|temper)\b": "dimee average-weights, dimee fit-temperatures",
    r"\blab\.(chaos|bench|load|links|relay)\b": "testbed",
    r"-m shared\.(ledger|relay)\b(?!\.)": "shared.ledger.server, testbed.links",
    r"\bway to the mobile\b": "client to gateway",
    r"\bsuccess heads?\b": "correctness heads",
}
"""Regular expression → what to write instead."""

IDENTIFIERS = {
    *("meet", "lane", "told", "keeps", "story", "Place", "Flowing", "coming", "CROWD"),
    *("KEEPS_BUSY", "FORGETS", "CALM_S", "Course", "Ways", "ahead", "in_hand", "wanted"),
    *("capped", "Asking", "asking", "Device", "ReadText", "Decided", "Observed", "Guard", "Watch"),
    *("Note", "standing", "stand", "stands", "Knew", "flow", "Flow", "FlowProcess", "THIN"),
    *("AHEAD", "yields", "sure", "intake", "settle", "Unlearning"),
    *("second_plan", "Way", "Pump", "rivals", "judge", "race", "Bed", "reach", "holes", "trim"),
    *("Rendered", "Tell", "while_present", "ClientGone", "BookedTogether"),
}
"""Whole names of functions, classes, arguments, variables and attributes."""

PHONE_PAGE = "docs/how-to/open-the-app-on-a-phone.md"
EXAMPLES = {
    ("README.md", "phone"),
    ("docs/glossary.md", "phone"),
    (PHONE_PAGE, "phone"),
    (PHONE_PAGE, "phones"),
    ("docs/how-to/run-on-android-and-ios.md", "phone"),
}
"""File and word: everyday examples, and pages about real phones, that are allowed."""

PROSE = (
    "*.py",
    "*.md",
    "*.toml",
    "*.yml",
    "*.yaml",
    "*.sh",
    "*.txt",
    "Makefile",
    "deploy/Dockerfile",
)
EXEMPT = ("tests/laws/test_names.py", "testbed/samples.txt", "deploy/constraints.txt")
RENAMED_ROW = re.compile(r"^\| `.*", re.M)
"""A row of the changelog's table of renamed settings, options and commands."""


def text_of(name: str) -> str:
    """Return the text of a file, without the old names that the changelog lists.

    The name of the page about phones is left out too.
    """
    text = (REPOSITORY / name).read_text(encoding="utf-8").replace(Path(PHONE_PAGE).name, "")
    return RENAMED_ROW.sub("", text) if name == "CHANGELOG.md" else text


def replaced_words(name: str, text: str) -> set[str]:
    """Return the replaced words and phrases in a text, with the name to use instead."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    words = {word.lower() for word in re.findall(r"[A-Za-z]+", split)}
    found = {
        f"{word} → {WORDS[word]}" for word in words & set(WORDS) if (name, word) not in EXAMPLES
    }
    return found | {f"{p} → {new}" for p, new in PHRASES.items() if re.search(p, text, re.I)}


def identifiers(tree: ast.Module) -> set[str]:
    """Return the names that the file defines or uses."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.arg():
                found.add(node.arg)
            case ast.Name():
                found.add(node.id)
            case ast.Attribute():
                found.add(node.attr)
    return found


@pytest.mark.parametrize("suffix", PROSE)
def test_replaced_words_are_not_used(suffix: str) -> None:
    found = {
        name: sorted(words)
        for name in tracked(suffix)
        if name not in EXEMPT and (words := replaced_words(name, name + "\n" + text_of(name)))
    }
    assert not found


def test_replaced_identifiers_are_not_used() -> None:
    found = {}
    for name in tracked("*.py"):
        used = identifiers(ast.parse((REPOSITORY / name).read_text(encoding="utf-8")))
        names = {part for part in (*used, Path(name).stem) if part.lstrip("_") in IDENTIFIERS}
        if names:
            found[name] = sorted(names)
    assert not found


def test_replaced_words_are_found() -> None:
    text = "close_doors, ClosedDoor, the course of a request, of course, dimee temper, microphone"
    assert replaced_words("a.py", text) == {
        "door → auth",
        "doors → auth",
        "temper → fit temperatures",
        r"(?<!of )\bcourse\b → request state",
        r"\bdimee (mix|temper)\b → dimee average-weights, dimee fit-temperatures",
    }
