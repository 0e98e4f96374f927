"""The ledger's store in SQLite (WAL mode) or PostgreSQL, with the same behaviour in both."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from shared.domain import Side, State
from shared.errors import InvalidInput, LedgerUnavailable
from shared.files import other_owner_remedy
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import StoreResult
from shared.ledger.server.bulk_insert import KEY, first_ends, insert_entries
from shared.ledger.server.conflicts import record_conflicts
from shared.ledger.server.partitions import DayPartitions, is_partition_change
from shared.ledger.server.tables import entries
from shared.ledger.sqlite_file import (
    RemovedFileError,
    SqliteFile,
    is_damaged,
    keep_log_of_empty_file,
)

_CACHE_KB = 64 * 1024  # SQLite's default of 2 MB is too small for the indexes of a million entries
BUSY_TIMEOUT_S = 8.0
"""Time to wait for a lock of SQLite's file. It is below the ten seconds that a shipper waits."""
INSERT_ATTEMPTS = 3
"""Most attempts to store a delivery while partitions change or the disk is full."""
_ALEMBIC = threading.Lock()  # Alembic's context is global to the process
_MIGRATION_LOCK = 0x64696D6565  # key of the advisory lock; no other program uses it


class LedgerStore:
    """Store of entries, one for each (attempt_id, side).

    The same entry may be delivered repeatedly and in any order. ``url`` is ``sqlite:///FILE`` or
    ``postgresql://…``. The constructor migrates the schema, also when two processes start at the
    same time. It raises `InvalidInput` for another kind of URL and `LedgerUnavailable` if the
    database cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.write_problem: str | None = None
        """Message of the last delivery's error; None if the last delivery was stored."""
        self._url = url
        try:
            self._engine = _engine(url)
            file = _sqlite_file(self._engine.url)
            if file is not None:
                keep_log_of_empty_file(file)
            self._migrate()
            self.partitions = DayPartitions(self._engine)
            self._opened = None if file is None else SqliteFile(file)
        except (SQLAlchemyError, OSError) as error:
            denied = isinstance(error, PermissionError)
            remedy = other_owner_remedy() if denied else _remedy(url, error)
            raise LedgerUnavailable(
                f"database-url: the ledger's database cannot be used ({_reason(error, url)}); "
                f"{remedy}"
            ) from None

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    def upsert(self, delivered: Sequence[LedgerEntry]) -> StoreResult:
        """Store entries in one transaction; of stored entries, only open ones are replaced.

        An end of an attempt that has another end is kept as a conflict, which `verify` reports.
        """
        if not delivered:
            return StoreResult()
        for attempt in range(INSERT_ATTEMPTS):
            try:
                result = self._insert(delivered)
                break
            except LedgerUnavailable as error:
                again = is_partition_change(error) or (_is_full(error) and self._empty_wal())
                if not again or attempt == INSERT_ATTEMPTS - 1:
                    raise
        self.write_problem = None
        return result

    def _insert(self, delivered: Sequence[LedgerEntry]) -> StoreResult:
        self.partitions.prepare(delivered)
        try:
            with self.connect() as connection:
                self._check_file()
                now = time.time()
                changed = insert_entries(connection, first_ends(delivered), now)
                duplicates = len(delivered) - changed
                other_ends = record_conflicts(connection, delivered, now) if duplicates else 0
        except LedgerUnavailable as error:
            self.write_problem = error.message
            raise
        return StoreResult(stored=changed, duplicates=duplicates, conflicts=other_ends)

    def _empty_wal(self) -> bool:
        """Return whether SQLite's write-ahead log could be emptied, so that a write may fit."""
        if self.dialect != "sqlite":
            return False
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(RESTART)")
        except SQLAlchemyError:
            return False
        return True

    def request_entries(self, request_id: str) -> list[LedgerEntry]:
        """Return both sides of a request's attempts, in order; empty for an unknown request."""
        if "\0" in request_id:  # PostgreSQL rejects NUL, and no identifier contains it
            return []
        query = (
            sa.select(entries)
            .where(entries.c.request_id == request_id)
            .order_by(entries.c.ordinal, entries.c.attempt_id, entries.c.side)
        )
        with self.connect() as connection:
            return [entry_of(row) for row in connection.execute(query).mappings()]

    def last_requests(self, count: int, policy: str | None = None) -> list[list[LedgerEntry]]:
        """Return the last ``count`` answered requests, newest first, each as its caller's entries.

        The order follows the ledger's clock; requests of one delivery follow the mobile's clock.
        With ``policy``, only requests that this policy decided are returned.
        """
        if "\0" in (policy or ""):
            return []
        newest = sa.select(entries.c.request_id).where(
            entries.c.side == Side.CALLER.value,
            entries.c.final,
            entries.c.state == State.ANSWERED.value,
        )
        if policy is not None:
            newest = newest.where(entries.c.policy == policy)
        order = (entries.c.received_at, entries.c.started_at, entries.c.request_id)
        newest = newest.order_by(*(column.desc() for column in order)).limit(count)
        with self.connect() as connection:
            by_request: dict[str, list[LedgerEntry]] = {
                name: [] for name in connection.scalars(newest)
            }
            query = sa.select(entries).where(
                entries.c.side == Side.CALLER.value, entries.c.request_id.in_(by_request)
            )
            query = query.order_by(entries.c.ordinal, entries.c.attempt_id)
            for row in connection.execute(query).mappings():
                by_request[row["request_id"]].append(entry_of(row))
        return list(by_request.values())

    def entries(self) -> Iterator[LedgerEntry]:
        """Yield every entry, in the order of its key."""
        query = sa.select(entries).order_by(*(entries.c[name] for name in KEY))
        with self.connect() as connection:
            for row in connection.execute(query).mappings():
                yield entry_of(row)

    def ping(self) -> None:
        """Raise `LedgerUnavailable` unless the database answers."""
        with self.connect() as connection:
            self._check_file()
            connection.execute(sa.select(1))

    def size_bytes(self) -> int:
        """Return the size of the database; raise `LedgerUnavailable` if it does not answer."""
        query = (
            "SELECT pg_database_size(current_database())"
            if self.dialect == "postgresql"
            else "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        )
        with self.connect() as connection:
            return int(connection.execute(sa.text(query)).scalar_one())

    def _check_file(self) -> None:
        if self._opened is None:
            return
        try:
            self._opened.check()
        except RemovedFileError as error:
            raise LedgerUnavailable(
                f"the ledger's database failed ({error}); nothing was stored; restart the ledger, "
                "and the outboxes deliver again"
            ) from None

    @contextmanager
    def connect(self, writing: bool = False) -> Iterator[sa.Connection]:
        """Open a connection in a transaction; database errors become `LedgerUnavailable`.

        Set ``writing`` for a transaction that reads first and writes later: SQLite must take its
        write lock at the beginning.
        """
        try:
            with self._engine.connect() as connection:
                if writing and self.dialect == "sqlite":
                    connection.info["begin"] = "BEGIN IMMEDIATE"
                with connection.begin():
                    yield connection
        except sa.exc.DBAPIError as error:
            raise LedgerUnavailable(
                f"the ledger's database failed ({_reason(error, self._url)}); nothing was stored; "
                f"{_remedy(self._url, error)}"
            ) from error

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _migrate(self) -> None:
        with _ALEMBIC, _exclusive(self._engine.url):
            self._upgrade()

    def _upgrade(self) -> None:
        config = Config()
        config.set_main_option("script_location", "shared.ledger.server:migrations")
        with self._engine.connect() as connection:
            if self.dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            else:
                connection.info["begin"] = "BEGIN IMMEDIATE"
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()


@contextmanager
def _exclusive(url: sa.URL) -> Iterator[None]:
    """Lock SQLite's file, because two processes cannot switch it to WAL mode at the same time."""
    file = _sqlite_file(url)
    if file is None:
        yield
        return
    with Path(f"{file}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sqlite_file(url: sa.URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def entry_of(row: sa.RowMapping) -> LedgerEntry:
    """Return the entry of a row of ``entries``."""
    return LedgerEntry(**{name: value for name, value in row.items() if name != "received_at"})


def _engine(url: str) -> sa.Engine:
    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        parsed = sa.make_url(url)
        supported = parsed.get_backend_name() in ("sqlite", "postgresql")
    except (ArgumentError, NoSuchModuleError, ValueError):  # ValueError for a port
        supported = False
    if not supported:
        raise InvalidInput(
            "database-url: must be sqlite:///FILE or postgresql://USER@HOST/NAME",
            field="database-url",
        )
    if parsed.get_backend_name() == "postgresql":
        return sa.create_engine(parsed, pool_pre_ping=True, pool_size=5)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        # the driver would begin transactions too late for BEGIN IMMEDIATE
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        # an outbox deletes acknowledged entries, so they must survive a power cut here
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.info.pop("begin", "BEGIN"))

    return engine


def _remedy(url: str, error: Exception) -> str:
    """Return what to do when the database fails."""
    if url.startswith("postgresql"):
        return "check that it runs, has disk space, and that the account may create tables"
    if is_damaged(getattr(error, "orig", None)):
        return "restore the file, or move it away and start again: `sqlite3 FILE .recover` reads it"
    return "check that the disk is not full, and that no other program locks the file"


def _is_full(error: BaseException) -> bool:
    cause = getattr(error.__cause__, "orig", None)
    return getattr(cause, "sqlite_errorname", None) == "SQLITE_FULL"


_PUBLIC_OPTIONS = frozenset({"host", "hostaddr", "port", "user", "dbname", "connect_timeout"})
"""Options of a database URL whose values a message may show: it says which server failed."""


def _reason(error: Exception, database_url: str) -> str:
    """Return the first line of a driver's message, without what the URL keeps secret."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    try:
        url = sa.make_url(database_url)
    except sa.exc.ArgumentError as failure:
        return f"{type(failure).__name__}: not a database URL"
    options = (
        text
        for name, values in url.normalized_query.items()
        if name not in _PUBLIC_OPTIONS
        for text in (name, *values)
    )
    for secret in (url.password, *options):
        if secret:
            reason = reason.replace(str(secret), "…")
    return reason
