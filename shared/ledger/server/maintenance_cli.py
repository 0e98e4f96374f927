"""``dimee ledger export | import | prune``: maintenance of the ledger's database.

The commands open the database directly, whether or not the service runs. SQLAlchemy is imported
only when one of them runs, so that a client installation can list them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shared.ages import parse_age
from shared.errors import InvalidInput
from shared.extras import missing_extra
from shared.ledger.database_option import warn_of_password
from shared.ledger.server.settings import LedgerSettings
from shared.settings import read_settings

if TYPE_CHECKING:
    from shared.ledger.server.store import LedgerStore

_database_option = click.option(
    "--database-url",
    envvar="DIMEE_DATABASE_URL",
    callback=warn_of_password,
    help="Database: sqlite:///FILE or postgresql://…; the file in DIMEE_STATE_DIR if left out.",
)
_file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.command("export")
@_file_argument
@_database_option
def export_command(file: Path, database_url: str | None) -> None:
    """Write every entry to FILE, whose name ends with .parquet or .csv."""
    with _open_store(database_url) as store:
        from shared.ledger.server.transfer import export_entries

        click.echo(f"{export_entries(store, file):,} entries written to {file}")


@click.command("import")
@_file_argument
@_database_option
def import_command(file: Path, database_url: str | None) -> None:
    """Store every entry of an export FILE; importing it again changes nothing."""
    with _open_store(database_url, new=True) as store:
        from shared.ledger.server.transfer import import_entries

        result = import_entries(store, file)
        click.echo(
            f"{result.stored:,} entries imported from {file}, "
            f"{result.duplicates:,} were in the ledger already"
        )


def _age_s(_context: Any, _option: Any, value: str) -> float:
    # no minutes: m could be read as months
    age_s = parse_age(value, units="hdw")
    if age_s is None:
        raise click.BadParameter(f"{value} is not an age; give one such as 90d, 12h or 8w")
    return age_s


@click.command("prune")
@click.option(
    "--older-than",
    "older_than_s",
    required=True,
    callback=_age_s,
    help="Age of the last entry from which a request is removed, such as 90d, 12h or 8w.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be removed and change nothing.")
@_database_option
def prune_command(older_than_s: float, dry_run: bool, database_url: str | None) -> None:
    """Remove requests whose last entry is older, unless open, unpaired or ended twice."""
    with _open_store(database_url) as store:
        from shared.ledger.server.prune import prune

        result = prune(store, older_than_s, dry_run)
        kept = f"; kept because open, unpaired or ended twice: {result.kept:,}"
        click.echo(
            f"{result.requests:,} requests ({result.entries:,} entries, "
            f"{result.cost_lambda:,.1f} λ) "
            + ("would be removed" if dry_run else "removed")
            + (kept if result.kept else "")
        )


@contextmanager
def _open_store(database_url: str | None, new: bool = False) -> Iterator[LedgerStore]:
    open_store = _import_store()
    url = database_url or read_settings(LedgerSettings).store_url
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not new and not file.is_file():
        raise InvalidInput(
            f"database-url: there is no ledger in {file}; give its URL with --database-url",
            field="database-url",
        )
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


def _import_store() -> Callable[[str], LedgerStore]:
    try:
        from shared.ledger.server.store import LedgerStore
    except ModuleNotFoundError as error:
        missing = missing_extra(error, "the ledger's database", "ledger")
        if missing is None:
            raise
        raise missing from None
    return LedgerStore
