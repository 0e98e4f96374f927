"""Settings of the ledger, from ``DIMEE_*`` in the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.settings import ServiceSettings


class LedgerSettings(ServiceSettings):
    """Where it listens and where it keeps its entries."""

    port: int = 8700
    database_url: str | None = None
    """``sqlite:///FILE`` or ``postgresql://…``; by default a file in the state directory."""

    ledger_retention_days: Annotated[float, Field(gt=0)] | None = None
    """Forget older requests, once an hour; None: never."""

    @property
    def store_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite:///{self.state_dir / 'ledger.sqlite'}"
