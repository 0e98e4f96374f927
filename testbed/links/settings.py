"""Settings of the relay's process, from ``DIMEE_*`` in the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import is_loopback

Endpoint = Annotated[str, Field(pattern=r"^[^:\s]+:\d{1,5}$", max_length=300)]


class RelaySettings(BaseSettings):
    """Where one hop's link listens, whom it reaches, and what it is like."""

    model_config = SettingsConfigDict(
        env_prefix="DIMEE_", extra="ignore", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Of the control endpoint: whoever reaches it changes the link."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8720
    link_listen: Endpoint = "127.0.0.1:8710"
    link_target: Endpoint = "127.0.0.1:8702"
    link: str = "lan"
    """As ``4g`` or ``4g,loss=0.01``; ``@FILE``: a schedule."""
    link_seed: int = 0

    @field_validator("host")
    @classmethod
    def _is_nobody_elses(cls, value: str) -> str:
        if not is_loopback(value):
            raise ValueError("is not loopback, and a link's control asks nobody for a token")
        return value

    @field_validator("link_listen", "link_target")
    @classmethod
    def _has_a_port(cls, value: str) -> str:
        if not 1 <= int(value.rpartition(":")[2]) <= 65_535:
            raise ValueError("the port is not within 1 and 65,535")
        return value


def address(endpoint: str) -> tuple[str, int]:
    """``host:port`` as a pair."""
    host, _, port = endpoint.rpartition(":")
    return host, int(port)
