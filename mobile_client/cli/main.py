"""The ``dimee`` command.

Every package registers its subcommands as entry points. A subcommand is imported when it is used.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import click

from shared.errors import DimeeError, MissingExtra

GROUP = "dimee.commands"


class LazyGroup(click.Group):
    """Click group that loads its commands from the entry points of `GROUP`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every registered name without importing the commands."""
        return sorted(point.name for point in entry_points(group=GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        for point in entry_points(group=GROUP, name=cmd_name):
            try:
                command: click.Command = point.load()
            except ModuleNotFoundError as error:
                extra = "lab" if point.module.startswith("lab") else "service"
                raise MissingExtra(
                    f"dimee {cmd_name} needs {error.name}, which this installation leaves out; "
                    f"run: pip install 'dimee[{extra}]'"
                ) from None
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
    try:
        dimee()
    except DimeeError as error:
        click.echo(f"dimee: {error.message}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        if error.filename is None:
            raise
        click.echo(f"dimee: {error.filename}: {error.strerror}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
