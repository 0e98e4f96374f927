"""Alembic migrations of the ledger; run by `shared.ledger.store` at start."""
