"""``dimee token``: make, list and revoke the tokens that open the doors."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from shared.serving.tokens import SCOPES, Token, new_token, read_tokens, revoke_token
from shared.settings import default_state_dir

_file_option = click.option(
    "--tokens",
    "file",
    envvar="DIMEE_TOKENS",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file; by default tokens.jsonl in the state directory.",
)


def _file(given: Path | None) -> Path:
    return given or default_state_dir() / "tokens.jsonl"


@click.group()
def token() -> None:
    """Make, list and revoke bearer tokens; services read the file again when it changes."""


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(SCOPES),
    help="What it opens; give it once for each.",
)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="It expires after these.")
@click.option("--not-before", type=click.DateTime(), help="It is not valid before (UTC).")
@_file_option
def new(
    name: str,
    scopes: tuple[str, ...],
    days: float | None,
    not_before: datetime | None,
    file: Path | None,
) -> None:
    """Make a token for the device NAME and print its secret, this once.

    A second token of the same name is valid beside the first: hand it out, then revoke the first
    by its id.
    """
    begins = None if not_before is None else not_before.replace(tzinfo=UTC)
    expires = None
    if days is not None:
        expires = (begins or datetime.now(UTC)).replace(microsecond=0) + timedelta(days=days)
    where = _file(file)
    secret, made = new_token(where, name, scopes, begins, expires)
    click.echo(secret)
    click.echo(f"{made.name} {made.token_id}: {', '.join(made.scopes)}; in {where}", err=True)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_file_option
def list_tokens(as_json: bool, file: Path | None) -> None:
    """Show names, ids and scopes; secrets are nowhere."""
    tokens = read_tokens(_file(file))
    if as_json:
        shown = [t.model_dump(mode="json", exclude={"sha256"}) | {"id": t.token_id} for t in tokens]
        click.echo(json.dumps(shown, indent=2))
        return
    for one in tokens:
        click.echo(_line(one, datetime.now(UTC)))
    if not tokens:
        click.echo("no tokens: nobody can come in")


@token.command()
@click.argument("name")
@_file_option
def revoke(name: str, file: Path | None) -> None:
    """Take out every token of NAME, or the one of this id; it holds from the next request on."""
    for one in revoke_token(_file(file), name):
        click.echo(f"revoked {one.name} {one.token_id}")


def _line(one: Token, now: datetime) -> str:
    state = "valid"
    if not one.valid(now):
        state = "expired" if one.expires is not None and one.expires <= now else "not yet valid"
    until = f" until {one.expires:%Y-%m-%d %H:%M} UTC" if one.expires else ""
    return f"{one.name:<16} {one.token_id}  {', '.join(one.scopes)}  {state}{until}"
