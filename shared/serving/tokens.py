"""Token file: the accepted bearer tokens with their scopes, one line of JSON each.

The file holds SHA-256 hashes and no secrets. A secret has 256 random bits, so that an unsalted hash
is enough.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from shared.errors import InvalidInput, NotFound
from shared.field_types import PrincipalName, Sha256
from shared.files import ChangeDetector, read_limited
from shared.user_files import split_lines
from shared.validation import first_error

log = logging.getLogger(__name__)

Scope = Literal["infer", "classify", "status", "ledger:write", "ledger:read", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "dimee_"
ID_CHARS = 12


class Token(BaseModel):
    """One token. Several of the same name are valid at once, so that a token can be replaced."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: PrincipalName
    sha256: Sha256
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    not_before: AwareDatetime | None = None
    expires: AwareDatetime | None = None

    @property
    def token_id(self) -> str:
        """The first characters of the hash, which tell tokens of the same name apart."""
        return self.sha256[:ID_CHARS]

    def valid(self, now: datetime) -> bool:
        """Return whether the token is valid at ``now``."""
        begun = self.not_before is None or self.not_before <= now
        return begun and (self.expires is None or now < self.expires)


MAX_TOKENS_BYTES = 16 * 1024 * 1024
"""Largest token file that is read: about 50,000 tokens."""


def digest(secret: str | bytes) -> str:
    """Return the hash of a secret, as it is in the file."""
    raw = secret.encode() if isinstance(secret, str) else secret
    return hashlib.sha256(raw).hexdigest()


def find(tokens: Sequence[Token], secret: bytes) -> Token | None:
    """Return the token of a secret, or None; the time taken does not depend on the outcome."""
    sent, match = digest(secret), None
    for token in tokens:
        if hmac.compare_digest(token.sha256, sent):
            match = token
    return match


def read_tokens(file: Path) -> list[Token]:
    """Return all tokens of the file.

    Raises `InvalidInput` for a file that cannot be read or has an invalid line; the message has the
    line's number and not its content.
    """
    try:
        lines = split_lines(read_limited(file, MAX_TOKENS_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        raise InvalidInput(
            f"DIMEE_TOKENS: there is no {file}; write it with: "
            f"dimee token new NAME --scope infer --tokens {file}"
        ) from None
    except OSError as error:
        raise InvalidInput(f"DIMEE_TOKENS: {file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"DIMEE_TOKENS: {file} cannot be read (it is not UTF-8)") from None
    tokens = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            tokens.append(Token.model_validate_json(line))
        except ValidationError as error:
            field, _ = first_error(error, whole="line")
            raise InvalidInput(
                f"DIMEE_TOKENS: {file}, line {number}: {field} is invalid; "
                "write tokens with: dimee token new"
            ) from None
    return tokens


class TokenFile:
    """The accepted tokens, read again when the file changes.

    If the changed file cannot be read, an error is logged and the previous tokens stay valid. If
    the file is missing, every token is refused. Raises `InvalidInput` if the first reading fails.
    """

    def __init__(self, file: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._file = file
        self._now = now
        self._changes = ChangeDetector(file)
        self._tokens = read_tokens(file)

    def find_valid(self, secret: bytes) -> Token | None:
        """Return the token of a secret if it is valid now, else None."""
        self._refresh()
        token = find(self._tokens, secret)
        return token if token is not None and token.valid(self._now()) else None

    def find_valid_digest(self, sha256: str) -> Token | None:
        """Return the token with this hash if it is valid now, else None."""
        self._refresh()
        for token in self._tokens:
            if token.sha256 == sha256:
                return token if token.valid(self._now()) else None
        return None

    def _refresh(self) -> None:
        if not self._changes.changed():
            return
        if not self._changes.exists:
            log.error("%s is missing: every token is refused until it is back", self._file)
            self._tokens = []
            return
        try:
            self._tokens = read_tokens(self._file)
        except InvalidInput as error:
            log.error("%s; the previous tokens stay valid", error.message)


def new_token(
    file: Path,
    name: str,
    scopes: Sequence[str],
    not_before: datetime | None = None,
    expires: datetime | None = None,
) -> tuple[str, Token]:
    """Add a token to the file; return its secret, which is stored nowhere, and the token."""
    secret = PREFIX + secrets.token_urlsafe(32)
    facts = {"name": name, "sha256": digest(secret), "scopes": sorted(set(scopes))}
    try:
        token = Token.model_validate(facts | {"not_before": not_before, "expires": expires})
    except ValidationError as error:
        field = first_error(error, whole="token")[0].partition(".")[0]
        allowed = (
            f"one or more of {', '.join(SCOPES)}" if field == "scopes" else "A-Z a-z 0-9 _ . -"
        )
        raise InvalidInput(f"{field}: is invalid; use {allowed}", field=field) from None
    with _locked(file):
        _write(file, [*_read_if_exists(file), token])
    return secret, token


def revoke_token(file: Path, name: str) -> list[Token]:
    """Remove and return the tokens with this name or id; raise `NotFound` if there is none."""
    with _locked(file):
        tokens = read_tokens(file)
        revoked = [token for token in tokens if name in (token.name, token.token_id)]
        if not revoked:
            raise NotFound(f"{name[:64]}: {file} has no such token; see: dimee token list")
        _write(file, [token for token in tokens if token not in revoked])
    return revoked


def _read_if_exists(file: Path) -> list[Token]:
    return read_tokens(file) if file.exists() else []


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Lock the file's folder while the file is replaced."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(file.parent, os.O_RDONLY)
    except OSError as error:
        raise InvalidInput(f"{file.parent} cannot be used ({error.strerror})") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written ({error.strerror})") from None
    finally:
        os.close(folder)


def _write(file: Path, tokens: Sequence[Token]) -> None:
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    lines = [json.dumps(token.model_dump(mode="json", exclude_none=True)) for token in tokens]
    written = file.with_name(f"{file.name}.new")
    written.unlink(missing_ok=True)
    with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as out:
        out.write("".join(f"{line}\n" for line in lines))
        out.flush()
        os.fsync(out.fileno())
    written.chmod(mode)
    written.replace(file)
