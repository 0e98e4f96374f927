"""Settings that several processes share, read from ``DIMEE_*`` environment variables.

This module imports no web framework, because the mobile client's settings extend these.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shared.addresses import valid_address, valid_origins
from shared.cpus import usable_cores
from shared.errors import InvalidInput
from shared.field_types import ReplicaName, is_boolean, refused_character
from shared.replica import host_replica
from shared.validation import first_error
from shared.variable_names import warn_of_unknown_variables

NO_LEDGER = "off"
"""Value of ``ledger_url`` with which nothing is recorded."""
MOUNTED_BUNDLE = Path("/bundle")
"""Folder in a container at which the user's bundle is mounted."""
Port = Annotated[int, Field(ge=1, le=65_535)]
SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def default_state_dir() -> Path:
    """Return ``$XDG_STATE_HOME/dimee``, or ``~/.local/state/dimee`` if the variable is unset."""
    home = os.environ.get("XDG_STATE_HOME")
    if home:
        return Path(home) / "dimee"
    try:
        return Path.home() / ".local" / "state" / "dimee"
    except RuntimeError:
        raise _without_home("DIMEE_STATE_DIR to a folder for the outbox") from None


def expand_home(path: Path) -> Path:
    """Return ``path`` with the home folder in place of ``~``; raise `InvalidInput` without one."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise _without_home("a path that does not begin with ~") from None


def _without_home(instead: str) -> InvalidInput:
    return InvalidInput(
        "settings: there is no home folder: HOME is not set, and the system knows no such user; "
        f"set {instead}"
    )


def default_bundle() -> Path:
    """Return `MOUNTED_BUNDLE` if a bundle is mounted there, else the shipped bundle.

    The shipped bundle is in the working directory, else in the code's repository. The compose file
    mounts ``/dev/null`` if no bundle is to be mounted.
    """
    if MOUNTED_BUNDLE.exists() and not MOUNTED_BUNDLE.is_char_device():
        return MOUNTED_BUNDLE
    inside = Path("bundles") / "sst2-minilm"
    beside = Path(__file__).parents[1] / inside
    return inside if inside.is_dir() or not beside.is_dir() else beside


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``, an address or the name localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def without_brackets(host: str) -> str:
    """Return an IPv6 address without the brackets that it has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def read_settings(kind: type[SettingsT], **given: Any) -> SettingsT:
    """Return settings of class ``kind``; raise `InvalidInput` that names the wrong variable.

    ``given`` overrides the environment; a name that the class does not have is an error.
    """
    unknown = sorted(given.keys() - kind.model_fields.keys())
    if unknown:
        raise InvalidInput(
            f"settings: {unknown[0][:100]} is not a setting of {kind.__name__}; leave it out",
            field=unknown[0][:100],
        )
    warn_of_unknown_variables()
    try:
        return kind(**given)
    except ValidationError as error:
        field, problem = first_error(error, whole="settings")
        name = field.partition(".")[0]
        raise InvalidInput(f"settings: DIMEE_{name.upper()}: {problem}", field=name) from None
    except SettingsError as error:
        raise InvalidInput(f"settings: {error}; lists are written as JSON") from None


def refuse_arguments() -> None:
    """Raise `InvalidInput` if the command line has arguments, of which a server reads none."""
    if sys.argv[1:]:
        raise InvalidInput(
            f"{sys.argv[1][:100]}: a server takes no arguments; set DIMEE_… variables "
            "(docs/reference/settings.md)",
            field="arguments",
        )


def _valid_ledger(url: str) -> str:
    return url if url == NO_LEDGER else valid_address(url)


class CallerSettings(BaseSettings):
    """Outgoing bearer token and TLS files of a process that calls a service. All are optional.

    An empty variable counts as unset: compose files pass unset values that way.
    """

    model_config = SettingsConfigDict(
        env_prefix="DIMEE_", env_ignore_empty=True, extra="ignore", use_attribute_docstrings=True
    )

    token: SecretStr | None = None
    """Bearer token to send to other services."""
    token_file: Path | None = None
    """File with the bearer token to send; read again when it changes."""
    tls_ca: Path | None = None
    """PEM file of the certificate authorities that sign the servers called over https."""
    tls_client_cert: Path | None = None
    """PEM file of the client certificate to present."""
    tls_client_key: Path | None = None
    """PEM file of the client certificate's key, without a password."""

    @field_validator("*", mode="before")
    @classmethod
    def _check_value(cls, value: Any) -> Any:
        # no setting is a boolean, and pydantic would read True as the number 1
        if is_boolean(value):
            raise ValueError("input should not be a boolean")
        if isinstance(value, str | Path) and (refused := refused_character(str(value))):
            raise ValueError(f"holds {refused}")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _check_path(cls, value: Any, info: ValidationInfo) -> Any:
        # an empty path would be the working directory
        kind = cls.model_fields[info.field_name or ""].annotation
        if value == "" and kind in (Path, Path | None):
            raise ValueError("is empty; give a path, or leave it out")
        return value


class ServiceSettings(CallerSettings):
    """Settings of every service: address, state, authentication, limits and TLS."""

    host: Annotated[str, AfterValidator(without_brackets)] = "127.0.0.1"
    """Address to listen on: ``0.0.0.0`` for all IPv4 addresses, ``::`` for all IPv6 addresses."""
    port: Port = 8700
    """TCP port to listen on."""
    state_dir: Path = Field(default_factory=default_state_dir)
    """Directory of the outbox and, on the ledger, the database."""
    ledger_url: Annotated[str, AfterValidator(_valid_ledger)] = Field(
        default="http://127.0.0.1:8700", repr=False
    )
    """Base URL of the ledger service. ``off``: the process records nothing, and says so at its
    start and in `/readyz`."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """Least severe level that is logged."""
    tokens: Path | None = None
    """File of the accepted tokens, written by `dimee token`; read again when it changes."""
    publish_address: str = ""
    """In a container, the host's address at which the port is published; tokens are required
    unless it is a loopback address."""
    allowed_hosts: Annotated[str, Field(max_length=1_000)] = ""
    """Public host names, separated by commas, at which a service without tokens answers; used with
    a reverse proxy that keeps the ``Host`` header. It always answers at IP addresses and local
    names; other names are refused with 403, because a web page can make its own name resolve to
    127.0.0.1 (DNS rebinding)."""
    rate_limit: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """Requests a second that each client may send; each text of a call counts, and each
    256 KiB of a body."""
    rate_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Requests that a client may send at once before the rate limit applies."""
    tls_cert: Path | None = None
    """PEM file of the server certificate; without it the service speaks plain HTTP."""
    tls_key: Path | None = None
    """PEM file of the server certificate's key, without a password."""
    tls_client_ca: Path | None = None
    """PEM file of the authorities that must have signed a client's certificate."""
    web_origins: Annotated[str, Field(max_length=2_000), AfterValidator(valid_origins)] = ""
    """Origins, such as ``https://app.example``, with commas between them, whose pages may call this
    service from a browser (CORS). Empty: only pages of the service itself."""
    metrics: Literal["on", "off"] = "on"
    """``on``: the service counts its work and answers `GET /metrics` for Prometheus."""


class BundleSettings(ServiceSettings):
    """Settings of a process that runs layers of a bundle."""

    bundle: Annotated[Path, AfterValidator(expand_home)] = Field(default_factory=default_bundle)
    """Folder of the model bundle."""
    mobile_layers: int | None = None
    """Number m of layers that the mobile runs."""
    edge_layers: int | None = None
    """Number n of layers that the edge runs."""
    certificate: Path | None = None
    """Certificate file written by `dimee calibrate`; without it no guarantee is given."""
    undelivered_warning_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 60.0
    """Seconds without a successful delivery after which waiting ledger entries are reported, in the
    log, in `/readyz` and by `dimee status`."""
    outbox_max_mb: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 512.0
    """Most megabytes of entries that wait on disk for the ledger, about 2.2 KB for each request. A
    warning is given at 80 %; at the limit, requests are refused with 503 until the ledger takes
    entries."""


class TierSettings(BundleSettings):
    """Settings that edge and cloud share."""

    replica: ReplicaName = Field(default_factory=host_replica)
    """Name of this process among the replicas of its tier, which keeps its name when it is started
    again: at most 64 letters, digits and `.`, `_`, `-`. The ledger records it. Unset: the name of
    the host, which in a StatefulSet is the pod's."""
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=lambda: min(256, usable_cores())
    )
    """Number of processes that run layers, each on one core. Unset: the cores that this process may
    use, by its affinity and the CPU quota of its container (`--cpus 2`: 2; half a core: 1). With
    GPUs: how many of them to use, each with one process; unset: all."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that runs the layers: ``cpu``; ``cuda``, NVIDIA's GPUs, which needs the extra `cuda`;
    or ``auto``, the GPUs if the extra is installed and there is one, else the cores."""
    price_book: Path | None = None
    """Has no effect on edge and cloud; accepted so that all tiers can share their settings."""
    max_queue: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Requests that may wait in the queue."""
    max_queue_ms: Annotated[float, Field(gt=0, le=600_000, allow_inf_nan=False)] | None = None
    """Longest expected wait in milliseconds at which a request is accepted; a sixth of it in
    overload."""
