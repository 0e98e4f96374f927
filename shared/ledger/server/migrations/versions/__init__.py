"""Alembic migrations of the ledger; run by `shared.ledger.server.store` at start."""
