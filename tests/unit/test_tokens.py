"""Token file and `dimee token`: hashes, validity, rotation and changes of the file."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.errors import InvalidInput, NotFound
from shared.serving import tokens as module
from shared.serving.tokens import (
    TokenFile,
    digest,
    find,
    new_token,
    read_tokens,
    revoke_token,
)
from shared.serving.tokens_cli import token as command

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "auth" / "tokens.jsonl"


def test_file_contains_the_hash_and_not_the_secret(file: Path) -> None:
    secret, token = new_token(file, "mobile-1", ["infer", "ledger:write"])
    written = file.read_text()
    assert secret not in written
    assert secret.removeprefix("dimee_") not in written
    assert digest(secret) in written
    assert len(secret) >= len("dimee_") + 43, "a secret has 256 random bits"
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_tokens(file) == [token]


def test_two_tokens_of_a_name_are_valid_until_one_is_revoked(file: Path) -> None:
    first, old = new_token(file, "mobile-1", ["infer"])
    token_file = TokenFile(file)
    second, new = new_token(file, "mobile-1", ["infer"])
    assert [token_file.find_valid(one.encode()) for one in (first, second)] == [old, new]
    assert revoke_token(file, old.token_id) == [old]
    assert [token_file.find_valid(one.encode()) for one in (first, second)] == [None, new]
    revoke_token(file, "mobile-1")
    assert token_file.find_valid(second.encode()) is None


def test_token_is_valid_only_within_its_period(file: Path) -> None:
    clock = [NOW]
    secret, token = new_token(file, "guest", ["classify"], NOW, NOW + timedelta(days=1))
    token_file = TokenFile(file, lambda: clock[0])
    results = []
    for clock[0] in (NOW - timedelta(seconds=1), NOW, NOW + timedelta(days=1)):
        results.append(token_file.find_valid(secret.encode()))
    assert results == [None, token, None]


def test_every_hash_is_compared_whichever_matches(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = [new_token(file, f"mobile-{i}", ["infer"])[0] for i in range(5)]
    compared: list[str] = []
    compare = hmac.compare_digest

    def watched(a: str, b: str) -> bool:
        compared.append(a)
        return compare(a, b)

    monkeypatch.setattr(module.hmac, "compare_digest", watched)
    known = read_tokens(file)
    for secret in (secrets[0], secrets[4], "dimee_unknown"):
        compared.clear()
        find(known, secret.encode())
        assert compared == [token.sha256 for token in known]


def test_invalid_file_keeps_the_tokens_and_missing_file_refuses_all(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret, token = new_token(file, "mobile-1", ["infer"])
    valid_content = file.read_text()
    token_file = TokenFile(file)
    file.write_text(valid_content + '{"name": "half')
    with caplog.at_level(logging.ERROR):
        assert token_file.find_valid(secret.encode()) == token
        assert token_file.find_valid(secret.encode()) == token
    assert len(caplog.records) == 1, "the error is logged once"
    assert "line 2" in caplog.text
    assert "half" not in caplog.text
    file.unlink()
    assert token_file.find_valid(secret.encode()) is None
    file.write_text(valid_content)
    assert token_file.find_valid(secret.encode()) == token


@pytest.mark.parametrize(
    "line",
    [
        "no colon",
        '{"name": "a", "sha256": "short", "scopes": ["infer"]}',
        json.dumps({"name": "a", "sha256": "0" * 64, "scopes": ["root"]}),
        json.dumps({"name": "a", "sha256": "0" * 64, "scopes": []}),
        json.dumps({"name": "a b", "sha256": "0" * 64, "scopes": ["infer"]}),
        json.dumps({"name": "a", "sha256": "0" * 64, "scopes": ["infer"], "secret": "x"}),
        json.dumps({"name": "a", "sha256": "0" * 64, "scopes": ["infer"], "expires": "soon"}),
    ],
)
def test_invalid_line_is_named_and_not_repeated(file: Path, line: str) -> None:
    file.parent.mkdir()
    file.write_text("\n" + line + "\n")
    with pytest.raises(InvalidInput, match="line 2") as caught:
        TokenFile(file)
    assert line not in caught.value.message


def test_invalid_names_and_scopes_are_refused(file: Path) -> None:
    with pytest.raises(InvalidInput, match="name"):
        new_token(file, "a name with spaces", ["infer"])
    with pytest.raises(InvalidInput, match="scopes"):
        new_token(file, "a", ["everything"])
    assert not file.exists()
    with pytest.raises(InvalidInput, match="dimee token new"):
        TokenFile(file)
    new_token(file, "a", ["infer"])
    with pytest.raises(NotFound, match="dimee token list"):
        revoke_token(file, "b")


def run_command(file: Path) -> Callable[..., str]:
    def run(*words: str) -> str:
        done = CliRunner().invoke(command, [*words, "--tokens", str(file)])
        assert done.exit_code == 0, done.output
        return done.output

    return run


def test_command_creates_lists_and_revokes(file: Path) -> None:
    run = run_command(file)
    printed = run("new", "mobile-1", "--scope", "infer", "--scope", "ledger:write", "--days", "90")
    secret = printed.splitlines()[0]
    (created,) = read_tokens(file)
    assert created.sha256 == digest(secret)
    assert created.expires is not None
    listed = run("list")
    assert secret not in listed
    expected = f"{'mobile-1':<16} {created.token_id}  infer, ledger:write  valid until"
    assert listed.startswith(expected)
    assert json.loads(run("list", "--json"))[0]["id"] == created.token_id
    assert run("revoke", "mobile-1") == f"revoked mobile-1 {created.token_id}\n"
    assert "every request is refused" in run("list")
