"""Settings of every process, from ``DIMEE_*`` in the environment; wrong ones are refused at start.

Imports no web framework: the mobile's settings extend these.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shared.errors import InvalidInput

OPTIONAL = {
    *("token", "token_file", "tls_ca", "tls_client_cert", "tls_client_key"),
    *("tokens", "rate_limit", "tls_cert", "tls_key", "tls_client_ca", "certificate"),
    *("escalation_budget", "max_queue_ms", "price_book", "latency_price_lambda"),
}
SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def default_state_dir() -> Path:
    """Where a process keeps outbox and ledger: ``$XDG_STATE_HOME/dimee``, else below the home."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "dimee"


def default_bundle() -> Path:
    """The ready bundle: below the working directory, else beside the code."""
    inside = Path("bundles") / "sst2-minilm"
    beside = Path(__file__).parents[1] / inside
    return inside if inside.is_dir() or not beside.is_dir() else beside


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it; a name other than localhost is not believed."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_settings(kind: type[SettingsT], **given: Any) -> SettingsT:
    """Settings of this kind; raises `InvalidInput` that names the variable that is wrong."""
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        raise InvalidInput(
            f"settings: DIMEE_{name.upper()}: {first['msg'][:1].lower()}{first['msg'][1:]}",
            field=name,
        ) from None
    except SettingsError as error:
        raise InvalidInput(f"settings: {error}; lists are written as JSON") from None


class CallerSettings(BaseSettings):
    """What a process shows at the doors of others; all of it may be left out."""

    model_config = SettingsConfigDict(
        env_prefix="DIMEE_", extra="ignore", use_attribute_docstrings=True
    )

    token: SecretStr | None = None
    token_file: Path | None = None
    """Holds the token in its place; read again when it changes."""
    tls_ca: Path | None = None
    """PEM certificates that those whom it asks over https are checked against."""
    tls_client_cert: Path | None = None
    tls_client_key: Path | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _unset_when_empty(cls, value: object, info: ValidationInfo) -> object:
        """A compose file passes what is unset as an empty string."""
        return None if value == "" and info.field_name in OPTIONAL else value


class ServiceSettings(CallerSettings):
    """What every process needs to know."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8700
    state_dir: Path = Field(default_factory=default_state_dir)
    ledger_url: str = "http://127.0.0.1:8700"
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    tokens: Path | None = None
    """Who may come in: the file that `dimee token` writes, read again when it changes."""
    publish_address: str = ""
    """In a container: the host's address at which the port is published; loopback needs no
    tokens."""
    rate_limit: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """Requests a second that each client may make; a call of many texts counts each."""
    rate_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """How many it may make at once."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """Only clients with a certificate that these PEM certificates signed are let in."""


class BundleSettings(ServiceSettings):
    """A process that runs layers. m and n are the bundle's unless they are given."""

    bundle: Path = Field(default_factory=default_bundle)
    mobile_layers: int | None = None
    edge_layers: int | None = None
    certificate: Path | None = None
    """What `dimee calibrate` wrote; empty: no promise is made."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1


class TierSettings(BundleSettings):
    """An edge or a cloud: all the cores it may use, and a bounded queue."""

    threads: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=lambda: len(os.sched_getaffinity(0))
    )
    price_book: Path | None = None
    """Accepted, so that all tiers can share their settings. Prices stand on the caller's side of
    the ledger; a server that is given a price book says so in its log."""
    max_queue: Annotated[int, Field(ge=1, le=100_000)] = 256
    """How many requests wait at most, in a burst."""
    max_queue_ms: Annotated[float, Field(gt=0, le=600_000)] | None = None
    """How long a request may be expected to wait; more are refused with 429 at once, and in an
    overload the queue is kept at a sixth of it. None: 150, or as long as 80 texts take."""
