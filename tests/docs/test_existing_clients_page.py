"""The examples of "Use existing clients" print what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from testbed.processes.processes import Testbed
from tests.support.paths import REPOSITORY, free_ports
from tests.support.running_testbed import start

PAGE = (REPOSITORY / "docs" / "how-to" / "use-existing-clients.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(python|bash)\n(.*?)^```\n\n```text\n(.*?)^```", PAGE, re.S | re.M)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The ports of the page and those of a running testbed."""
    (grpc_port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("testbed")
    with start(folder, DIMEE_GRPC_PORT=str(grpc_port)) as running:
        yield {"8701": str(mobile_port(running)), "8704": str(grpc_port)}


def mobile_port(testbed: Testbed) -> int:
    return int(testbed.roles["mobile"].url.rpartition(":")[2])


def without_numbers(text: str) -> str:
    """Return the text without numbers and identifiers, which differ from run to run."""
    text = re.sub(r"\d+\.\d+(e-\d+)?", "N", text)
    text = re.sub(r"[0-9a-f]{4,}…|\b[0-9a-f]{16,}\b", "ID", text)
    return re.sub(r"\d+", "N", text).strip()


def test_every_client_has_an_example() -> None:
    assert len(EXAMPLES) == 7
    assert len(re.findall(r"^```(?:python|bash)$", PAGE, re.M)) == len(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(example: tuple[str, str, str], ports: dict[str, str]) -> None:
    language, code, printed = example
    if language == "bash" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for shown, port in ports.items():
        code = code.replace(shown, port)
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-c", code]
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
    )
    assert done.returncode == 0, done.stderr
    assert without_numbers(done.stdout) == without_numbers(printed)
