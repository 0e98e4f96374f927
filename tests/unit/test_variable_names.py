"""Unknown ``DIMEE_*`` variables are warned about, with the nearest known name."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shared.variable_names as variable_names
from cloud_server.settings import CloudSettings
from edge_server.settings import EdgeSettings
from mobile_client.settings import MobileSettings
from shared.ledger.server.settings import LedgerSettings
from shared.settings import read_settings
from shared.variable_names import OTHERS, PREFIX, SETTINGS, unknown_variables
from testbed.links.settings import RelaySettings
from tests.support.paths import REPOSITORY
from tests.support.tracked import tracked

KINDS = (MobileSettings, EdgeSettings, CloudSettings, LedgerSettings, RelaySettings)


def test_known_names_are_those_of_all_settings() -> None:
    fields = {name.upper() for kind in KINDS for name in kind.model_fields}
    assert fields == SETTINGS
    assert not OTHERS & SETTINGS


def test_every_variable_of_the_repository_is_known() -> None:
    for pattern in ("*.py", "*.yml", "*.sh", "*Dockerfile"):
        for name in tracked(pattern):
            if not name.startswith("tests/"):
                text = (REPOSITORY / name).read_text(encoding="utf-8")
                found = re.findall(r"\bDIMEE_[A-Z_]*[A-Z]\b", text)
                assert unknown_variables(found) == {}, name


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("DIMEE_EDGE_ULR", "DIMEE_EDGE_URL"),
        ("DIMEE_STATEDIR", "DIMEE_STATE_DIR"),
        ("DIMEE_DEADLINE", "DIMEE_DEADLINE_MS"),
        ("DIMEE_LEDGERURL", "DIMEE_LEDGER_URL"),
        ("dimee_polcy", "DIMEE_POLICY"),
        ("DIMEE_ZEBRA", None),
    ],
)
def test_nearest_name_is_given(name: str, near: str | None) -> None:
    assert unknown_variables([name]) == {name: near}


def test_known_and_other_variables_are_not_warned_about() -> None:
    names = [PREFIX + name for name in SETTINGS | OTHERS]
    assert unknown_variables([*names, "dimee_port", "DIMEE_COMPOSE_TAG", "HOME", "DIME"]) == {}


def test_warning_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(variable_names, "_warned", set())
    monkeypatch.setenv("DIMEE_EDGE_ULR", "http://secret@edge")
    with caplog.at_level(logging.WARNING):
        for kind in KINDS:
            read_settings(kind)
    assert caplog.messages == [
        "DIMEE_EDGE_ULR is not a setting of dimee and has no effect; did you mean DIMEE_EDGE_URL?"
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "shared.command", "classify", "fine", "--policy", "mobile"],
        ["-m", "shared.command", "status"],
        ["-m", "shared.command", "ledger", "summary"],
        ["-m", "shared.command", "load", "--url", "http://127.0.0.1:9"],
        ["-m", "edge_server"],
    ],
)
def test_commands_print_the_warning(command: list[str], tmp_path: Path) -> None:
    settings = {
        "DIMEE_STAT_DIR": "/x",
        "DIMEE_STATE_DIR": str(tmp_path),
        "DIMEE_LEDGER_URL": "http://127.0.0.1:9",
    }
    if command[-1] == "edge_server":
        settings["DIMEE_BUNDLE"] = "/nowhere"  # it warns before it refuses this
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | settings,
        capture_output=True,
        text=True,
    )
    assert done.stderr.count("DIMEE_STAT_DIR is not a setting") == 1, done.stderr
    assert "did you mean DIMEE_STATE_DIR?" in done.stderr
