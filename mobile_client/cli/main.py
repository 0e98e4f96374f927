"""The ``dimee`` command.

Every package registers its subcommands as entry points. A subcommand is imported when it is used.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from importlib.metadata import entry_points

import click

from shared.errors import DimeeError, MissingExtra
from shared.extras import TESTBED, missing_extra
from shared.signals import exit_on_signals
from shared.terminal import one_line, protect_output

GROUP = "dimee.commands"
EXTRAS = {"lab": ("lab",), "testbed": TESTBED}
"""Extras of the commands in a package."""


class LazyGroup(click.Group):
    """Click group that loads its commands from the entry points of `GROUP`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every registered name without importing the commands."""
        return sorted(point.name for point in entry_points(group=GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        for point in entry_points(group=GROUP, name=cmd_name):
            try:
                with exit_on_signals():
                    command: click.Command = point.load()
            except ModuleNotFoundError as error:
                extras = EXTRAS.get(point.module.partition(".")[0], ())
                missing = missing_extra(error, f"dimee {cmd_name}", *extras)
                if missing is None:
                    raise
                raise missing from None
            return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List each command with its summary, or with the extra that it needs."""
        rows = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
            except MissingExtra as error:
                rows.append((name, f"(not installed: {error.message.rsplit('run: ', 1)[-1]})"))
                continue
            if command is not None:
                rows.append((name, command.get_short_help_str(80)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dimee")
def dimee() -> None:
    """Classify texts on a mobile, an edge server or a cloud server."""


def main() -> None:
    """Run the command; a `DimeeError`, or that of a file, is printed and exits with code 2."""
    protect_output()
    try:
        try:
            dimee()
        finally:
            _flush()
    except DimeeError as error:
        click.echo(f"dimee: {one_line(error.message)}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:  # of a package that a command imports when it runs
        missing = missing_extra(error, f"dimee {' '.join(sys.argv[1:2])}".strip())
        if missing is None:
            raise
        click.echo(f"dimee: {missing.message}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _discard_output()
        sys.exit(141)
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:
            _discard_output()
            click.echo("dimee: the output cannot be written (no space left)", err=True)
            sys.exit(2)
        if error.filename is None:
            raise
        click.echo(f"dimee: {one_line(str(error.filename))}: {error.strerror}", err=True)
        sys.exit(2)


def _flush() -> None:
    """Write what is left of the output, while its errors can be handled."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_output() -> None:
    """Keep the interpreter from writing the rest of the output when it exits."""
    with open(os.devnull, "wb") as nowhere, suppress(OSError):
        os.dup2(nowhere.fileno(), 1)


if __name__ == "__main__":
    main()
