"""Settings of a relay process, read from ``DIMEE_*`` in the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import is_loopback, without_brackets

HostPort = Annotated[
    str, Field(pattern=r"^([^:\s\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}$", max_length=300)
]


class RelaySettings(BaseSettings):
    """Addresses and link of one relay."""

    model_config = SettingsConfigDict(
        env_prefix="DIMEE_", extra="ignore", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address of the control endpoint; loopback only, since it requires no authentication."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8720
    """Port of the control endpoint."""
    link_listen: HostPort = "127.0.0.1:8710"
    """Address (HOST:PORT) on which the relay accepts connections."""
    link_target: HostPort = "127.0.0.1:8702"
    """Address (HOST:PORT) to which the relay forwards them."""
    link: str = "lan"
    """The link: a profile such as 4g, with changes (4g,loss=0.01) or packet traces
    (4g,up=FILE,down=FILE), or @FILE for a schedule."""
    link_seed: int = 0
    """Seed of jitter and loss."""

    @field_validator("host")
    @classmethod
    def _is_loopback(cls, value: str) -> str:
        if not is_loopback(value):
            raise ValueError("is not loopback; the control endpoint requires no authentication")
        return value

    @field_validator("link_listen", "link_target")
    @classmethod
    def _has_a_port(cls, value: str) -> str:
        if not 1 <= int(value.rpartition(":")[2]) <= 65_535:
            raise ValueError("the port is not between 1 and 65,535")
        return value


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port``; an IPv6 address has brackets, which the result has not."""
    host, _, port = text.rpartition(":")
    return without_brackets(host), int(port)
