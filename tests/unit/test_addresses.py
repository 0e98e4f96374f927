"""Addresses without a scheme are refused at start, with the address that was meant."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloud_server.settings import CloudSettings
from edge_server.settings import EdgeSettings
from mobile_client import MobileClient
from mobile_client.cli.status import status
from mobile_client.settings import MobileSettings
from shared.addresses import valid_address
from shared.errors import InvalidInput
from shared.ledger.cli import ledger
from shared.ledger.client import LedgerClient
from shared.ledger.server.settings import LedgerSettings
from shared.settings import read_settings
from testbed.load.cli import load
from testbed.prices.cli import prices

SCHEME = "begins with neither http:// nor https://; give "


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("localhost:8001", SCHEME + "http://localhost:8001"),
        ("10.0.0.7:8702/base", SCHEME + "http://10.0.0.7:8702"),
        ("[::1]:8702", SCHEME + "http://[::1]:8702"),
        ("//edge:8702", SCHEME + "http://edge:8702"),
        ("me:hunter2@edge:8702", SCHEME + "http://edge:8702"),
        ("me:hunter2@edge:8702/?key=secret", SCHEME + "http://edge:8702"),
        ("ws://edge:1", SCHEME + "http://edge:1"),
        ("edge", SCHEME + "http://HOST:PORT or https://HOST:PORT"),
        ("", SCHEME + "http://HOST:PORT or https://HOST:PORT"),
        ("edge:99999", SCHEME + "http://HOST:PORT or https://HOST:PORT"),
        ("http://", "is not an address; give http://HOST:PORT or https://HOST:PORT"),
    ],
)
def test_message_has_the_address_to_give(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        valid_address(url)


@pytest.mark.parametrize("url", ["http://edge", "https://[::1]:8702/base", "http://10.0.0.7:1/"])
def test_addresses_are_accepted(url: str) -> None:
    assert valid_address(url) == url


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (MobileSettings, "ledger_url"),
        (MobileSettings, "edge_url"),
        (MobileSettings, "cloud_url"),
        (EdgeSettings, "ledger_url"),
        (CloudSettings, "ledger_url"),
        (LedgerSettings, "ledger_url"),
    ],
)
def test_setting_without_a_scheme_is_refused(
    kind: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"DIMEE_{name.upper()}"
    monkeypatch.setenv(variable, "localhost:8001")
    expected = f"settings: {variable}: {SCHEME}http://localhost:8001"
    with pytest.raises(InvalidInput) as raised:
        read_settings(kind)
    assert raised.value.message == expected


def test_every_address_in_the_settings_is_checked() -> None:
    for kind in (MobileSettings, EdgeSettings, CloudSettings, LedgerSettings):
        for name in kind.model_fields:
            if name.endswith("_url") and name != "database_url":
                with pytest.raises(InvalidInput, match="give http://localhost:8001"):
                    read_settings(kind, **{name: "localhost:8001"})


def test_client_and_ledger_client_refuse_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="DIMEE_EDGE_URL: begins with neither"):
        MobileClient(edge_url="localhost:8001", state_dir=tmp_path)
    with pytest.raises(InvalidInput, match="ledger-url: begins with neither"):
        LedgerClient("localhost:8700")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (status, ["--mobile-url", "localhost:8701"]),
        (status, ["--edge-url", "localhost:8701"]),
        (ledger, ["summary", "--ledger-url", "localhost:8701"]),
        (load, ["--url", "localhost:8701"]),
        (prices, ["measure", "--url", "localhost:8701"]),
    ],
)
def test_option_without_a_scheme_is_refused(
    command: object, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(command, arguments)  # type: ignore[arg-type]
    assert isinstance(found.exception, InvalidInput)
    assert found.exception.message.endswith("; give http://localhost:8701")


@pytest.mark.parametrize("module", ["mobile_client", "edge_server", "shared.ledger.server"])
def test_server_does_not_start_with_it(module: str, tmp_path: Path) -> None:
    settings = {"DIMEE_LEDGER_URL": "me:hunter2@ledger:8700", "DIMEE_STATE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", module], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == f"dimee: settings: DIMEE_LEDGER_URL: {SCHEME}http://ledger:8700\n"
