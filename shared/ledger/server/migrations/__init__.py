"""Alembic migrations of the ledger, which `shared.ledger.server.store` runs at start."""
