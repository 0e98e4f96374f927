"""``dimee ledger export | import | prune``: on the ledger's database itself, running or not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shared.errors import InvalidInput, MissingExtra
from shared.ledger.server.settings import LedgerSettings
from shared.settings import read_settings

if TYPE_CHECKING:
    from shared.ledger.server.store import LedgerStore

_SECONDS = {"h": 3_600.0, "d": 86_400.0, "w": 604_800.0}

_database_option = click.option(
    "--database-url",
    envvar="DIMEE_DATABASE_URL",
    help="sqlite:///FILE or postgresql://…; by default the file in DIMEE_STATE_DIR.",
)
_file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.command("export")
@_file_argument
@_database_option
def export_command(file: Path, database_url: str | None) -> None:
    """Write every entry to FILE, which ends with .parquet or .csv."""
    with _opened(database_url) as store:
        from shared.ledger.server.transfer import export

        click.echo(f"{export(store, file):,} entries written to {file}")


@click.command("import")
@_file_argument
@_database_option
def import_command(file: Path, database_url: str | None) -> None:
    """Take every entry of an export FILE; repeating it changes nothing."""
    with _opened(database_url, new=True) as store:
        from shared.ledger.server.transfer import take_in

        done = take_in(store, file)
        click.echo(f"{done.stored:,} entries taken from {file}, {done.duplicates:,} known already")


def _age(_context: Any, _option: Any, value: str) -> float:
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([hdw])", value)
    if not found or not float(found[1]):
        raise click.BadParameter(f"{value} is not an age such as 90d, 12h or 8w")
    return float(found[1]) * _SECONDS[found[2]]


@click.command("prune")
@click.option("--older-than", "older_than_s", required=True, callback=_age, help="90d, 12h, 8w.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@_database_option
def prune_command(older_than_s: float, dry_run: bool, database_url: str | None) -> None:
    """Forget whole requests whose last entry is older; what is open or unpaired stays."""
    with _opened(database_url) as store:
        from shared.ledger.server.prune import prune

        done = prune(store, older_than_s, dry_run)
        click.echo(
            f"{done.requests:,} requests ({done.entries:,} entries, {done.cost_lambda:,.1f} λ) "
            + ("would be forgotten" if dry_run else "forgotten")
            + (f"; kept as open or unpaired: {done.kept:,}" if done.kept else "")
        )


@contextmanager
def _opened(database_url: str | None, new: bool = False) -> Iterator[LedgerStore]:
    open_store = _store_class()
    url = database_url or read_settings(LedgerSettings).store_url
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not new and not file.is_file():
        raise InvalidInput(
            f"database-url: there is no ledger in {file}; say where it is with --database-url",
            field="database-url",
        )
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


def _store_class() -> Callable[[str], LedgerStore]:
    try:
        from shared.ledger.server.store import LedgerStore
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the ledger's database needs {error.name}; run: pip install 'dimee[ledger]'"
        ) from None
    return LedgerStore
