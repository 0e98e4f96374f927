"""Option ``--database-url`` of the commands."""

from __future__ import annotations

import click
from click.core import ParameterSource

from shared.redaction import has_password


def warn_of_password(
    context: click.Context, option: click.Parameter, database_url: str | None
) -> str | None:
    """Return the option's value; warn on stderr if the command line shows a password."""
    source = context.get_parameter_source(option.name or "")
    if source is ParameterSource.COMMANDLINE and database_url and has_password(database_url):
        click.echo(
            "dimee: warning: other users of this machine can read the password in --database-url; "
            "give the URL in DIMEE_DATABASE_URL instead",
            err=True,
        )
    return database_url
