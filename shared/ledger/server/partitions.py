"""Partitions of ``entries`` in PostgreSQL: one for each day, so that a day is removed at once.

The day is that of ``attempt_id`` (`shared.ids.day_of`), not of the arrival: an entry that is
delivered again falls into the same partition, whose primary key finds it. Besides the days there
are two partitions: ``entries_undated`` for identifiers without a time, and ``entries_other`` for
days that have no partition, because a clock is wrong by months or the partition could not be
created. SQLite has one table.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from shared.ids import TIME_DIGITS, day_of, first_id
from shared.ledger.entry import LedgerEntry

log = logging.getLogger(__name__)

UNDATED = date(1970, 1, 1)
"""Value of the column ``day`` of an entry whose identifier has no time."""
OTHER = "entries_other"
PAST_DAYS, FUTURE_DAYS = 400, 2
"""Days around today that get a partition, which bounds their number for any identifiers."""
LOCK_S = 1.0
"""Longest wait for a lock: a delivery must not wait until a report has read the whole ledger."""
RETRY_S = 60.0
"""Time until a partition that could not be created is tried again."""
_LOCK = 0x64696D6565 + 1  # key of the advisory lock of those who create and drop partitions
_ID = "[0-9a-f]" * 12 + "7" + "[0-9a-f]" * 3 + "[89ab]" + "[0-9a-f]" * 15


class DayPartitions:
    """Creates the partitions of the days of which entries arrive; nothing in SQLite.

    Thread-safe. ``clock`` returns seconds since 1970.
    """

    def __init__(self, engine: sa.Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._created: set[date] = set()
        self._retry_at = 0.0

    def prepare(self, delivered: Iterable[LedgerEntry]) -> None:
        """Create the partitions of these entries and of tomorrow; see `prepare_days`."""
        if self._engine.dialect.name == "postgresql":
            self.prepare_days(day_of(entry.attempt_id) for entry in delivered)

    def prepare_days(self, days: Iterable[date | None]) -> None:
        """Create the partitions of these days and of tomorrow, in transactions of their own.

        For PostgreSQL only. Does not raise if one cannot be created: its entries then go to
        ``entries_other``, and move when it is created later.
        """
        now = self._clock()
        today = datetime.fromtimestamp(now, UTC).date()
        first, last = today - timedelta(PAST_DAYS), today + timedelta(FUTURE_DAYS)
        needed = {day for day in days if day is not None and first <= day <= last}
        missing = (needed | {today + timedelta(1)}) - self._created
        if not missing or now < self._retry_at:
            return
        try:
            for day in sorted(missing):
                with self._engine.begin() as connection:
                    _create(connection, day)
                self._created.add(day)
        except DBAPIError as error:
            self._retry_at = now + RETRY_S
            reason = type(error.orig).__name__
            log.warning("the ledger's partition of %s could not be created (%s)", day, reason)

    def forget(self) -> None:
        """Forget which partitions exist, because some have been dropped."""
        self._created.clear()


def partition_of(day: date) -> str:
    """Return the name of the table that holds the entries of a day."""
    return f"entries_{day:%Y%m%d}"


def lock_partitions(connection: sa.Connection) -> None:
    """Let no other process create or drop a partition in the meantime; wait at most `LOCK_S`."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_S:g}s'")
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def _create(connection: sa.Connection, day: date) -> None:
    lock_partitions(connection)
    name = partition_of(day)
    if connection.execute(sa.select(sa.func.to_regclass(name))).scalar_one() is not None:
        return
    statements = (
        # the locks of ATTACH PARTITION, which unlike those of CREATE TABLE … PARTITION OF let
        # entries of other days pass
        f"LOCK TABLE {OTHER} IN ACCESS EXCLUSIVE MODE",
        f"CREATE TABLE {name}"
        " (LIKE entries INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)",
        f"WITH moved AS (DELETE FROM {OTHER} WHERE day = '{day}' RETURNING *)"
        f" INSERT INTO {name} SELECT * FROM moved",
        f"ALTER TABLE entries ATTACH PARTITION {name}"
        f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(1)}')",
    )
    for statement in statements:
        connection.exec_driver_sql(statement)


def existing_days(connection: sa.Connection) -> list[date]:
    """Return the days that have a partition in PostgreSQL, oldest first."""
    query = sa.text(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE inhparent = 'entries'\\:\\:regclass AND relname ~ '^entries_[0-9]{8}$'"
        " ORDER BY relname"
    )
    names = connection.scalars(query)
    return [datetime.strptime(name, "entries_%Y%m%d").replace(tzinfo=UTC).date() for name in names]


def is_of_day(connection: sa.Connection, table: sa.FromClause, day: date) -> sa.ColumnElement[bool]:
    """Return the condition that a row's attempt is dated on ``day``.

    ``table`` is ``entries``, an alias of it, or another table with ``attempt_id``.
    """
    if connection.dialect.name == "postgresql":
        name = table.name  # type: ignore[attr-defined]
        if "side" in table.c and "ordinal" in table.c:
            return sa.literal_column(f"{name}.day", sa.Date) == day
        return sa.func.entry_day(table.c.attempt_id, type_=sa.Date) == day
    identifier = table.c.attempt_id
    digits = sa.func.substr(identifier, 1, TIME_DIGITS)
    return sa.and_(
        identifier >= first_id(day),  # for the index
        digits < first_id(day + timedelta(1)),
        identifier.op("GLOB")(_ID),
    )


def on_days_of(connection: sa.Connection, attempt_ids: Iterable[str]) -> sa.ColumnElement[bool]:
    """Return a condition that is true for these attempts, and lets PostgreSQL skip other days."""
    if connection.dialect.name != "postgresql":
        return sa.true()
    return on_days({day_of(identifier) or UNDATED for identifier in attempt_ids})


def on_days(days: Collection[date]) -> sa.ColumnElement[bool]:
    """Return the condition that an entry is on one of these days, which only PostgreSQL has."""
    return sa.literal_column("entries.day", sa.Date).in_(days)


def days_besides(connection: sa.Connection, done: Collection[date]) -> list[date]:
    """Return the days of all entries in PostgreSQL but those in ``done``.

    PostgreSQL reads only the partitions of days that a condition names, not all but some.
    """
    days = {UNDATED, *existing_days(connection)}
    days |= set(connection.scalars(sa.text(f"SELECT DISTINCT day FROM {OTHER}")))
    return sorted(days.difference(done))


def is_lock_timeout(error: BaseException) -> bool:
    """Return whether a statement did not get a lock: within `LOCK_S`, or because of a deadlock."""
    return _sqlstate(error) in ("55P03", _DEADLOCK)


def is_partition_change(error: BaseException) -> bool:
    """Return whether a statement failed because a partition was created or dropped meanwhile."""
    return _sqlstate(error) in (_CHECK_VIOLATION, _DEADLOCK)


_CHECK_VIOLATION, _DEADLOCK = "23514", "40P01"


def _sqlstate(error: BaseException) -> str | None:
    return getattr(getattr(error.__cause__, "orig", None), "sqlstate", None)
