"""Addresses and messages are shown without secrets."""

from __future__ import annotations

import io
import logging
import sys

import click
import pytest
from click.testing import CliRunner

from mobile_client import MobileSettings
from shared.errors import DimeeError, LedgerUnavailable
from shared.ledger.database_option import warn_of_password
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from shared.redaction import UNREADABLE_URL, redact, redact_urls, without_credentials
from shared.terminal import ProtectedStream

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8702", "http://127.0.0.1:8702"),
        ("http://127.0.0.1:8702/", "http://127.0.0.1:8702"),
        (f"https://me:{SECRET}@edge.example", "https://edge.example"),
        (f"https://{SECRET}@[::1]:8702/{SECRET}?{SECRET}#{SECRET}", "https://[::1]:8702/…"),
        (f"https://me:{SECRET}@{SECRET}@edge.example/", "https://edge.example"),
        (f"https://me:{SECRET}/{SECRET}@edge.example", UNREADABLE_URL),
        (f"https://[{SECRET}", UNREADABLE_URL),
        (f"me:{SECRET}@edge.example", UNREADABLE_URL),
        (SECRET, UNREADABLE_URL),
        ("", UNREADABLE_URL),
    ],
)
def test_address_is_shown_without_secrets(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"cannot connect to http://me:{SECRET}@edge/a", "cannot connect to http://edge/a"),
        (f"'postgresql://me:{SECRET}/x@y@db/name'", "'postgresql://db/name'"),
        (f"http://{SECRET}@a, http://b:{SECRET}@c", "http://a, http://c"),
        (f"password={SECRET} sslpassword={SECRET} host=db", "password=… sslpassword=… host=db"),
        (f"?API_KEY={SECRET}&token={SECRET}&a=1", "?API_KEY=…&token=…&a=1"),
        ("me@example.com says 1 = 1", "me@example.com says 1 = 1"),
        ("see https://example.com/docs", "see https://example.com/docs"),
    ],
)
def test_message_is_redacted(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_command_is_shown_without_addresses() -> None:
    command = f"dimee load --url http://me:{SECRET}@h:1/{SECRET} --ledger-url=https://h/{SECRET}"
    assert redact_urls(command) == "dimee load --url http://h:1/… --ledger-url=https://h/…"


def test_error_is_redacted_where_it_is_made() -> None:
    error = DimeeError(f"no answer from http://me:{SECRET}@edge")
    for shown in (error.message, str(error), repr(error), str(error.payload())):
        assert "no answer from http://edge" in shown
        assert SECRET not in shown


def test_settings_show_no_secret() -> None:
    urls = {f"{name}_url": f"http://me:{SECRET}@{name}/{SECRET}" for name in ("edge", "cloud")}
    settings = MobileSettings(**urls, ledger_url=f"http://me:{SECRET}@ledger", token=SECRET)
    ledger = LedgerSettings(database_url=f"postgresql://me:{SECRET}@db/ledger")
    assert SECRET not in repr(settings) + str(settings) + repr(ledger)


def test_log_and_traceback_on_stderr_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    stream = ProtectedStream(written, redacts=True)
    handler = logging.StreamHandler(stream)  # type: ignore[arg-type]
    log = logging.getLogger("test redaction")
    log.addHandler(handler)
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        raise RuntimeError(f"postgresql://me:{SECRET}@db failed")
    except RuntimeError:
        log.exception("http://me:%s@edge failed", SECRET)
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        log.removeHandler(handler)
    assert written.getvalue().count("RuntimeError: postgresql://db failed") == 2
    assert "http://edge failed" in written.getvalue()
    assert SECRET not in written.getvalue()


@pytest.mark.parametrize(
    ("url", "by_option", "warned"),
    [
        ("postgresql://me:planted@127.0.0.1:1/x", True, True),
        ("postgresql://me@127.0.0.1:1/x?password=planted", True, True),
        ("postgresql://me@127.0.0.1:1/x?sslpassword=planted", True, True),
        ("postgresql://me@127.0.0.1:1/x", True, False),
        ("postgresql://me:planted@127.0.0.1:1/x", False, False),
    ],
)
def test_password_in_a_command_is_warned_of(url: str, by_option: bool, warned: bool) -> None:
    option = click.option("--database-url", envvar="DATABASE", callback=warn_of_password)
    command = click.command()(option(lambda database_url: click.echo(database_url == url)))
    arguments = ["--database-url", url] if by_option else []
    result = CliRunner().invoke(command, arguments, env={} if by_option else {"DATABASE": url})
    assert result.stdout == "True\n"
    assert ("DIMEE_DATABASE_URL" in result.stderr) is warned
    assert "planted" not in result.stderr


def test_error_of_a_database_names_the_server_but_no_secret() -> None:
    url = "postgresql://u:planted@/x?host=127.0.0.1&port=1&connect_timeout=5&passfile=hidden"
    with pytest.raises(LedgerUnavailable) as caught:
        LedgerStore(url)
    assert '"127.0.0.1", port 1 failed: Connection refused' in caught.value.message
    assert "planted" not in caught.value.message
    assert "hidden" not in caught.value.message
