"""Alembic's entry point: runs on the connection that the store hands over."""

from alembic import context

from shared.ledger.server.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
