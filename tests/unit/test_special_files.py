"""A setting or option that names a pipe or a device ends in one sentence, without a wait."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.credentials import Credentials
from shared.errors import InvalidInput
from shared.ledger.open_outbox import NoOutbox
from shared.serving.tls import tls_options
from shared.serving.tokens import read_tokens
from shared.settings import ServiceSettings
from shared.text_files import TextReader
from shared.user_files import read_text

READERS: dict[str, Callable[[Path], object]] = {
    "token-file": lambda file: Credentials(token_file=file),
    "tokens": read_tokens,
    "ca": lambda file: Credentials(ca=file).verify,
    "client-cert": lambda file: Credentials(client_cert=file).verify,
    "server-cert": lambda file: tls_options(ServiceSettings(tls_cert=file)),
    "lines": lambda file: read_text(file, "arrivals"),
    "texts": lambda file: TextReader(pairs=False).read_file(file),
}


@pytest.fixture(params=["pipe", "device", "folder", "loop", "huge"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "special"
    if request.param == "pipe":
        os.mkfifo(file)
    elif request.param == "device":
        file.symlink_to("/dev/zero")
    elif request.param == "folder":
        file.mkdir()
    elif request.param == "loop":
        file.symlink_to(file)
    else:
        with file.open("wb") as sparse:
            sparse.truncate(10**11)
    return file


@pytest.mark.parametrize("reader", [name for name in READERS if name != "texts"])
def test_special_file_is_refused_without_waiting(reader: str, special: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        READERS[reader](special)
    assert str(special) in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("special", ["pipe", "device", "folder", "loop"], indirect=True)
def test_texts_are_not_read_from_a_device_or_a_pipe_without_writer(special: Path) -> None:
    with pytest.raises(InvalidInput):
        READERS["texts"](special)


def test_process_without_a_ledger_has_no_rejected_entry() -> None:
    assert NoOutbox().count_rejected() == 0
