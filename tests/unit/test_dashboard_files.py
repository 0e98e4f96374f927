"""The page's files: no HTML from strings, nothing from another host, uPlot as published."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest

from mobile_client.web import SHARED
from tests.support.paths import REPOSITORY

STATIC = REPOSITORY / "mobile_client" / "gateway" / "dashboard" / "static"
VENDOR = STATIC / "vendor"
OWN = sorted(
    path
    for path in [*STATIC.rglob("*"), *SHARED.rglob("*")]
    if path.suffix in (".html", ".css", ".js", ".svg") and VENDOR not in path.parents
)
FORBIDDEN = {
    r"\b(inner|outer)HTML\b|insertAdjacentHTML|document\.write": "text is set as text",
    r"\beval\(|new Function": "nothing is evaluated",
    r"\sstyle=|\son[a-z]+=\"|javascript:": "the content policy forbids it",
    r"(?<!xmlns=\")\bhttps?://(?!www\.w3\.org/)": "no other host is asked",
    r"@import|url\(": "every file is named in index.html",
    r"sessionStorage|document\.cookie": "scripts hold no session",
}
"""Regular expression → the rule that it breaks."""
UPLOT_1_6_31 = {
    "uPlot.iife.min.js": "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""File and its SHA-256 in the package of the npm registry."""


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_of_the_page_follows_its_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    broken = [rule for pattern, rule in FORBIDDEN.items() if re.search(pattern, text)]
    assert broken == []
    assert len(text.splitlines()) < 500, "one subject"


def test_every_style_and_module_is_used() -> None:
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    modules = "".join(path.read_text(encoding="utf-8") for path in OWN if path.suffix == ".js")
    for path in OWN:
        if path.suffix == ".css":
            folder = "shared" if path.parent == SHARED else "css"
            assert f"/dashboard/static/{folder}/{path.name}" in html
        elif path.suffix == ".js":
            folder, module = ("shared", "../shared/") if path.parent == SHARED else ("js", "./")
            used = f"/{folder}/{path.name}" in html or f'"{module}{path.name}"' in modules
            assert used, path.name


def test_uplot_is_as_published_and_has_its_licence() -> None:
    folder = VENDOR / "uplot"
    for name, digest in UPLOT_1_6_31.items():
        assert sha256((folder / name).read_bytes()).hexdigest() == digest
    assert "MIT License" in (folder / "LICENSE.txt").read_text(encoding="utf-8")
