"""Settings of the ledger service, from ``DIMEE_*`` environment variables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.settings import Port, ServiceSettings


class LedgerSettings(ServiceSettings):
    """Port, database and retention of the ledger service."""

    port: Port = 8700
    """TCP port that the ledger listens on."""

    database_url: str | None = Field(default=None, repr=False)
    """URL ``sqlite:///FILE`` or ``postgresql://…``; a file in the state directory if unset."""

    ledger_retention_days: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """Age in days after which requests are removed, checked once an hour; unset keeps them all."""

    @property
    def store_url(self) -> str:
        """URL of the database to use."""
        return self.database_url or f"sqlite:///{self.state_dir / 'ledger.sqlite'}"
