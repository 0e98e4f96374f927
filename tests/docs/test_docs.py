"""The documentation is what the code does: README blocks run, reference pages are current."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.bundle.loading import Bundle
from testbed.processes.processes import Testbed
from testbed.up import make_testbed
from tests.support.paths import BUNDLE, REPOSITORY, free_ports
from tests.support.reference import REFERENCE, commands_page, settings_page

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.S | re.M)
BASH = [body.strip() for language, body in BLOCKS if language == "bash"]
PYTHON = [body for language, body in BLOCKS if language == "python"]
COMPOSE = "docker compose up --build"


def run(command: str, **settings: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=REPOSITORY,
        env=os.environ | {"PATH": path} | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_is_of_a_known_kind() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python", "text"}
    assert len(README.splitlines()) < 200


@pytest.mark.parametrize("body", PYTHON)
def test_python_block(body: str) -> None:
    printed = run(f"{sys.executable} - <<'EOF'\n{body}\nEOF")
    assert printed.startswith("positive mobile ")


def test_the_two_commands(tmp_path: Path) -> None:
    """``make demo`` runs; ``make test`` is what runs this very test, so only its recipe is read."""
    assert BASH[:2] == ["make demo", "make test"]
    printed = run("make --dry-run test")
    assert "-m pytest" in printed
    ports = dict(zip(("ledger", "cloud", "edge", "mobile"), free_ports(4), strict=True))
    options = " ".join(f"--{name}-port {port}" for name, port in ports.items())
    assert "dimee demo" in run("make --dry-run demo")
    printed = run(f"dimee demo {options}")
    rows = [line for line in printed.splitlines() if re.search(r"\d%  (mobile|edge|cloud)", line)]
    assert len(rows) == 60
    assert "ledger verify: consistent" in printed
    shown = re.search(r"^text  +label.*$", README, re.M)
    assert shown is not None
    assert shown[0] in printed, "the README shows another header than the demo prints"


def test_blocks_that_need_servers(tmp_path: Path) -> None:
    """The blocks after the two commands, in order, against a testbed of their own."""
    ports = dict(zip(("ledger", "mobile", "edge", "cloud"), free_ports(4), strict=True))
    testbed: Testbed = make_testbed(ports, tmp_path, {"DIMEE_BUNDLE": str(BUNDLE)})
    check = (REPOSITORY / "deploy" / "compose-check.sh").read_text(encoding="utf-8")
    with testbed:
        testbed.start_all()
        urls = {f"DIMEE_{n.upper()}_URL": r.url for n, r in testbed.roles.items()}
        for body in BASH[2:]:
            if body == COMPOSE:
                assert "up " in check, "containers are the compose check's"
                assert "--build" in check or " build" in check
                continue
            command = body.replace("http://127.0.0.1:8701", testbed.roles["mobile"].url)
            printed = run(command, XDG_STATE_HOME=str(tmp_path / "own"), **urls)
            assert "positive" in printed
            if "verify" in body:
                assert printed.rstrip().endswith("consistent")


def test_reference_pages_are_current() -> None:
    for name, page in (("settings.md", settings_page()), ("commands.md", commands_page())):
        written = (REFERENCE / name).read_text(encoding="utf-8")
        assert written == page, f"run: python -m tests.support.reference ({name})"


def test_the_readmes_figures_are_the_manifests(bundle: Bundle) -> None:
    policies = bundle.manifest.accuracy["policies"]
    value, fixed, edge, cloud = (
        policies[name] for name in ("cascade-routing", "dimee-fixed", "edge", "cloud")
    )
    shown = " ".join(README.replace("−", "-").split())
    assert f"`cloud` answers {cloud['accuracy']:.2f} % right" in shown
    saving = value["cost_against_all_cloud"]
    assert f"`cascade-routing` {value['accuracy']:.2f} % at {saving:+.1f} % of the cloud" in shown
    saving = fixed["cost_against_all_cloud"]
    assert f"`dimee-fixed` {fixed['accuracy']:.2f} % at {saving:+.1f} %" in shown
    assert f"`edge` {edge['accuracy']:.2f} % at {edge['cost_against_all_cloud']:+.1f} %" in shown
    assert f"`dimee-fixed` costs {fixed['by_cloud_fee']['1.0']:+.1f} % more" in shown
    assert f"γ = {bundle.cost_model.cloud_fee:g} λ" in shown


def test_links_lead_somewhere() -> None:
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"


QUOTED = re.compile(r"\bbundle:? `?([0-9a-f]{16})\b|`([0-9a-f]{16})`", re.I)
"""A bundle id: 16 hex digits after the word bundle, or in backticks."""
ELSEWHERE = ("docs/benchmarks", "docs/results/extra")
"""Pages of measurements, which name the bundle that they measured."""
NOT_THE_SHIPPED_BUNDLE = {
    ("docs/decisions/0010-price-of-waiting.md", "a8e49e3167ee6e8f"): "said to be no longer shipped",
    ("bundles/sst2-minilm/README.md", "f0c8d674846f59f2"): "hash of the data",
    ("docs/results/certified.md", "c791d1fc8d4c5f4b"): "the bundle of the paper's split",
}
"""The other ids that a page may quote, each with the reason."""


def test_pages_quote_the_shipped_bundle(bundle: Bundle) -> None:
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    pages += (REPOSITORY / "bundles").rglob("*.md")
    for page in pages:
        name = page.relative_to(REPOSITORY).as_posix()
        if name.startswith(ELSEWHERE):
            continue
        found = {a or b for a, b in QUOTED.findall(page.read_text(encoding="utf-8"))}
        allowed = {i for where, i in NOT_THE_SHIPPED_BUNDLE if where == name}
        strange = found - allowed - {bundle.bundle_id}
        assert not strange, f"{name} quotes a bundle that is not shipped: {sorted(strange)}"
