"""Alembic's environment script: run the migrations on the store's connection."""

from alembic import context

from shared.ledger.server.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
