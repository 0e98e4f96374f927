"""The mobile client's JavaScript: the shared cases in Python, node and Chromium, types, copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.bundle.mobile_bundle import MobileBundle
from tests.support.browser import chromium
from tests.web import unicode_categories
from tests.web.evaluate import BOUNDS, difference, evaluate
from tests.web.make_cases import COUNTS, FILE
from tests.web.runtimes import (
    FOLDER,
    TIMEOUT_S,
    WEB,
    node,
    result_of,
    run,
    served,
    shipped,
    written,
)

TESTS = (
    "cases.test.js",
    "credentials.test.js",
    "delivery.test.js",
    "entries.test.js",
    "probes.test.js",
    "storage.test.js",
    "units.test.js",
)


@pytest.fixture(scope="module")
def mobile_bundle() -> MobileBundle:
    """The mobile part of the shipped bundle."""
    return shipped()


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    """The file of shared cases."""
    document: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return document


def test_there_are_500_cases_with_their_bounds(cases: dict[str, Any]) -> None:
    found = [case["kind"] for case in cases["cases"]]
    assert {kind: found.count(kind) for kind in COUNTS} == COUNTS
    assert len(found) == sum(COUNTS.values()) == 500
    assert cases["bounds"] == BOUNDS


@pytest.mark.parametrize("kind", COUNTS)
def test_python_gives_the_results_of_the_file(cases: dict[str, Any], kind: str) -> None:
    places = {}
    for case in cases["cases"]:
        if case["kind"] == kind:
            found = evaluate(case, cases["routers"])
            places[case["name"]] = difference(found, case["expected"], BOUNDS[kind])
    wrong = {name: place for name, place in places.items() if place is not None}
    assert wrong == {}, "write the file again with: python -m tests.web.make_cases"


def test_unicode_sets_are_those_of_the_tokenizers() -> None:
    written = unicode_categories.FILE.read_text(encoding="utf-8")
    assert written == unicode_categories.content()


def test_node_gives_the_results_of_the_file(mobile_bundle: MobileBundle, tmp_path: Path) -> None:
    run([node(), "--test", *TESTS], FOLDER, DIMEE_TEST_BUNDLE=str(written(mobile_bundle, tmp_path)))


def test_chromium_gives_the_results_of_the_file(mobile_bundle: MobileBundle) -> None:
    with chromium() as browser, served(mobile_bundle.files) as url:
        result = result_of(browser, f"{url}/tests/web/page.html", TIMEOUT_S)
    assert {kind: one["found"] for kind, one in result.items()} == {kind: [] for kind in COUNTS}
    assert {kind: one["run"] for kind, one in result.items()} == COUNTS


def test_types_are_right() -> None:
    run([node(), str(installed("typescript/bin/tsc")), "--project", "tsconfig.json"], WEB)


def test_copied_packages_are_those_of_the_lock_file() -> None:
    installed("onnxruntime-web/package.json")
    run([node(), "vendor.mjs", "--check"], WEB)
    lock = json.loads((WEB / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for folder, name in (
        ("onnxruntime-web", "onnxruntime-web"),
        ("tokenizers", "@huggingface/tokenizers"),
    ):
        readme = (WEB / "static" / "vendor" / folder / "README.txt").read_text(encoding="utf-8")
        assert f"{name} {lock[f'node_modules/{name}']['version']}," in readme
        assert "Copyright" in (WEB / "static/vendor" / folder / "LICENSE.txt").read_text("utf-8")


@pytest.mark.parametrize(
    "path", sorted((WEB / "static" / "js" / "core").rglob("*.js")), ids=lambda path: path.name
)
def test_core_has_no_page_no_network_and_no_storage(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for word in ("document.", "window.", "fetch(", "indexedDB", "localStorage", "caches."):
        assert word not in text, word
    assert len(text.splitlines()) < 400, "one subject"


def installed(name: str) -> Path:
    """Return a file in node_modules; skip the test if the packages are not installed."""
    file = WEB / "node_modules" / name
    if not file.exists():
        pytest.skip("the npm packages are not installed; run make web")
    return file
