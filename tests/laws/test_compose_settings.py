"""Values of the compose files come from variables that no command on the same machine reads.

An exported ``DIMEE_LEDGER_URL`` for the commands once made the containers deliver to themselves.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from pydantic_settings import BaseSettings

from cloud_server.settings import CloudSettings
from edge_server.settings import EdgeSettings
from mobile_client.cli.main import dimee
from mobile_client.settings import MobileSettings
from shared.ledger.server.settings import LedgerSettings
from shared.settings import read_settings
from testbed.links.settings import RelaySettings
from tests.support.paths import REPOSITORY

FILES = sorted(
    [REPOSITORY / "docker-compose.yml", *(REPOSITORY / "deploy").glob("compose*.yml")],
)
SERVICES: dict[str, type[BaseSettings]] = {
    "ledger": LedgerSettings,
    "cloud": CloudSettings,
    "edge": EdgeSettings,
    "mobile": MobileSettings,
}
PREFIX = "DIMEE_COMPOSE_"
VARIABLE = re.compile(r"(?<!\$)\$\{?(\w+)")


def interpolated(file: Path) -> set[str]:
    """Return the variables whose values the file contains, without those in comments."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return set(VARIABLE.findall(yaml.safe_dump(content)))


def variables_of_settings() -> set[str]:
    classes = [*SERVICES.values(), RelaySettings]
    return {f"DIMEE_{field.upper()}" for kind in classes for field in kind.model_fields}


def variables_of_commands(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        envvar = parameter.envvar
        yield from [envvar] if isinstance(envvar, str) else envvar or ()
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            yield from variables_of_commands(subcommand)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_takes_no_variable_that_a_command_reads(file: Path) -> None:
    used = {name for name in interpolated(file) if not name.startswith("PIP_")}
    assert used
    assert not [name for name in used if not name.startswith(PREFIX)]
    read = variables_of_settings() | set(variables_of_commands(dimee))
    assert {"DIMEE_LEDGER_URL", "DIMEE_BUNDLE", "DIMEE_MOBILE_URL"} <= read
    assert not used & read
    assert not [name for name in read if name.startswith(PREFIX)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_passes_no_variable_of_the_shell_on(file: Path) -> None:
    """A variable without a value is passed on under its own name."""
    for name, service in yaml.safe_load(file.read_text(encoding="utf-8"))["services"].items():
        assert "env_file" not in service
        environment = service.get("environment", {})
        assert isinstance(environment, dict), name
        assert None not in environment.values(), name


@pytest.mark.parametrize("name", SERVICES)
def test_values_that_are_not_set_are_the_defaults_of_the_service(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
    empty = []
    for variable, value in content["services"][name]["environment"].items():
        if re.fullmatch(rf"\$\{{{PREFIX}\w+:-\}}", str(value)):
            assert value == f"${{{PREFIX}{variable.removeprefix('DIMEE_')}:-}}"
            monkeypatch.setenv(variable, "")
            empty.append(variable.removeprefix("DIMEE_").lower())
    assert "log_level" in empty
    settings = read_settings(SERVICES[name])
    for field in empty:
        assert getattr(settings, field) == type(settings).model_fields[field].get_default()


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is missing")
def test_containers_get_no_value_of_the_commands(tmp_path: Path) -> None:
    """Compose itself resolves the file: the shell's values for the commands change nothing."""
    given = dict.fromkeys(variables_of_settings(), "http://127.0.0.1:1")
    command = ["docker-compose", "--file", str(REPOSITORY / "docker-compose.yml"), "config"]
    path = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(tmp_path)}
    outputs = [
        subprocess.run(
            command, env=path | variables, capture_output=True, text=True, check=True, timeout=60
        ).stdout
        for variables in ({}, given)
    ]
    assert outputs[0] == outputs[1]
    assert "/bundle" in outputs[0]
