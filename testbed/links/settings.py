"""Settings of a relay process, read from ``DIMEE_*`` in the environment."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import is_loopback, without_brackets

_HOST_PORT = r"([^:,\s\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}"
HostPorts = Annotated[str, Field(pattern=rf"^{_HOST_PORT}(,{_HOST_PORT})*$", max_length=10_000)]


class RelaySettings(BaseSettings):
    """Addresses and link of one relay."""

    model_config = SettingsConfigDict(
        env_prefix="DIMEE_", extra="ignore", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address of the control endpoint; loopback only, since it requires no authentication."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8720
    """Port of the control endpoint."""
    link_listen: HostPorts = "127.0.0.1:8710"
    """Address (HOST:PORT) on which the relay accepts connections; several with commas, each for the
    target at its place."""
    link_target: HostPorts = "127.0.0.1:8702"
    """Address (HOST:PORT) to which the relay forwards them; several with commas for replicas, which
    share the link."""
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
        if not all(1 <= port <= 65_535 for _, port in parse_addresses(value)):
            raise ValueError("the port is not between 1 and 65,535")
        return value

    @model_validator(mode="after")
    def _has_as_many(self) -> Self:
        listen, targets = parse_addresses(self.link_listen), parse_addresses(self.link_target)
        if len(listen) != len(targets) or len(set(targets)) != len(targets):
            raise ValueError(
                "link_listen and link_target differ in number, or a target is repeated"
            )
        return self


def parse_addresses(text: str) -> list[tuple[str, int]]:
    """Split addresses with commas between them."""
    return [parse_address(one) for one in text.split(",")]


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port``; an IPv6 address has brackets, which the result has not."""
    host, _, port = text.rpartition(":")
    return without_brackets(host), int(port)
