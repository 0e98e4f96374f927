"""``dimee token``: create, list and revoke bearer tokens."""

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
    help="Token file; default: tokens.jsonl in the state directory.",
)


def _token_file(file: Path | None) -> Path:
    return file or default_state_dir() / "tokens.jsonl"


@click.group()
def token() -> None:
    """Create, list and revoke bearer tokens. Services read the file again when it changes."""


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(SCOPES),
    help="Scope of the token; repeat it for several.",
)
@click.option(
    "--days",
    type=click.FloatRange(min=0, min_open=True),
    help="Days until the token expires; default: never.",
)
@click.option(
    "--not-before", type=click.DateTime(), help="Time (UTC) before which the token is not valid."
)
@_file_option
def new(
    name: str,
    scopes: tuple[str, ...],
    days: float | None,
    not_before: datetime | None,
    file: Path | None,
) -> None:
    """Create a token for the device NAME and print its secret, which is not stored.

    Several tokens of the same name are valid at once. To replace one, create a second, give it to
    the device, and revoke the first by its id.
    """
    not_before_utc = None if not_before is None else not_before.replace(tzinfo=UTC)
    expires = None
    if days is not None:
        expires = (not_before_utc or datetime.now(UTC)).replace(microsecond=0) + timedelta(
            days=days
        )
    path = _token_file(file)
    secret, created = new_token(path, name, scopes, not_before_utc, expires)
    click.echo(secret)
    click.echo(
        f"{created.name} {created.token_id}: {', '.join(created.scopes)}; in {path}", err=True
    )


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_file_option
def list_tokens(as_json: bool, file: Path | None) -> None:
    """Show names, ids, scopes and validity of all tokens."""
    tokens = read_tokens(_token_file(file))
    if as_json:
        rows = [t.model_dump(mode="json", exclude={"sha256"}) | {"id": t.token_id} for t in tokens]
        click.echo(json.dumps(rows, indent=2))
        return
    for listed in tokens:
        click.echo(_token_line(listed, datetime.now(UTC)))
    if not tokens:
        click.echo("no tokens: every request is refused")


@token.command()
@click.argument("name")
@_file_option
def revoke(name: str, file: Path | None) -> None:
    """Revoke all tokens with this NAME or id, from the next request on."""
    for revoked in revoke_token(_token_file(file), name):
        click.echo(f"revoked {revoked.name} {revoked.token_id}")


def _token_line(listed: Token, now: datetime) -> str:
    state = "valid"
    if not listed.valid(now):
        state = (
            "expired" if listed.expires is not None and listed.expires <= now else "not yet valid"
        )
    until = f" until {listed.expires:%Y-%m-%d %H:%M} UTC" if listed.expires else ""
    return f"{listed.name:<16} {listed.token_id}  {', '.join(listed.scopes)}  {state}{until}"
