"""Outgoing bearer token and TLS client certificate."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Generator
from functools import cache, cached_property
from pathlib import Path
from typing import Self

import httpx

from shared.errors import InvalidInput
from shared.files import ChangeDetector, check_regular, read_limited
from shared.settings import CallerSettings, read_settings

log = logging.getLogger(__name__)

_MAX_TOKEN_FILE_BYTES = 65_536


@cache
def _default_context() -> ssl.SSLContext:
    """Return httpx's default, which takes 20 ms to make and which all clients can share."""
    return httpx.create_ssl_context(trust_env=False)


class Credentials:
    """A bearer token and TLS files for calling other services.

    ``token_file`` is read again when it changes. Without a token no header is sent; without ``ca``
    servers are checked against the system's certificate authorities. Raises `InvalidInput` for a
    token or file that cannot be used.
    """

    def __init__(
        self,
        token: str | None = None,
        token_file: Path | None = None,
        ca: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
    ) -> None:
        if token is not None and token_file is not None:
            raise InvalidInput("settings: give DIMEE_TOKEN or DIMEE_TOKEN_FILE, not both")
        if client_key is not None and client_cert is None:
            raise InvalidInput("settings: DIMEE_TLS_CLIENT_KEY needs DIMEE_TLS_CLIENT_CERT")
        self._ca, self._cert, self._key = ca, client_cert, client_key
        self._changes: ChangeDetector | None = None
        self._headers: dict[str, str] = {}
        if token is not None:
            self._headers = _bearer(token, "DIMEE_TOKEN")
        elif token_file is not None:
            self._changes = ChangeDetector(token_file)
            self._read(token_file)

    @classmethod
    def of(cls, settings: CallerSettings) -> Self:
        """Return the credentials that the settings name."""
        return cls(
            settings.token.get_secret_value() if settings.token else None,
            settings.token_file,
            settings.tls_ca,
            settings.tls_client_cert,
            settings.tls_client_key,
        )

    @classmethod
    def from_environment(cls) -> Self:
        """Return the credentials that the ``DIMEE_*`` environment variables name."""
        return cls.of(read_settings(CallerSettings))

    def headers(self) -> dict[str, str]:
        """Return the headers to send with each request; empty without a token."""
        if self._changes is not None and self._changes.changed():
            try:
                self._read(self._changes.file)
            except InvalidInput as error:
                log.error("%s; the previous token stays in use", error.message)
        return self._headers

    @cached_property
    def verify(self) -> ssl.SSLContext | bool:
        """httpx's ``verify``: checks servers and presents the client certificate."""
        if self._ca is None and self._cert is None:
            return _default_context()
        try:
            if self._ca is not None:
                check_regular(self._ca)
            context = ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError):
            raise InvalidInput(f"DIMEE_TLS_CA: {self._ca} contains no PEM certificates") from None
        if self._cert is not None:
            try:
                for file in filter(None, (self._cert, self._key)):
                    check_regular(file)
                context.load_cert_chain(self._cert, self._key, password=_no_password)
            except (OSError, ssl.SSLError, ValueError):
                raise InvalidInput(
                    f"DIMEE_TLS_CLIENT_CERT: {self._cert} and its key cannot be used together; "
                    "both are PEM files without a password"
                ) from None
        return context

    @property
    def auth(self) -> httpx.Auth:
        """httpx's ``auth``: adds the token to every request."""
        return _Auth(self)

    def _read(self, file: Path) -> None:
        try:
            token = read_limited(file, _MAX_TOKEN_FILE_BYTES).decode("utf-8-sig").strip()
        except OSError as error:
            raise InvalidInput(
                f"DIMEE_TOKEN_FILE: {file} cannot be read ({error.strerror})"
            ) from None
        except UnicodeDecodeError:
            raise InvalidInput(
                f"DIMEE_TOKEN_FILE: {file} cannot be read (it is not UTF-8)"
            ) from None
        self._headers = _bearer(token, f"DIMEE_TOKEN_FILE: {file}")


class _Auth(httpx.Auth):
    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.update(self._credentials.headers())
        yield request


def _bearer(token: str, source: str) -> dict[str, str]:
    if not token or len(token) > 512 or not all("!" <= char <= "~" for char in token):
        raise InvalidInput(f"{source}: is not a token; give the line that dimee token new printed")
    return {"authorization": f"Bearer {token}"}


def _no_password() -> str:
    raise ValueError("the key has a password")
