"""The ``dimee`` command. Each room registers its own commands; none is imported before its use."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import click

from shared.errors import DimeeError, MissingExtra

GROUP = "dimee.commands"


class LazyGroup(click.Group):
    """A click group over the entry points of `GROUP`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every registered name, without importing any."""
        return sorted(point.name for point in entry_points(group=GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that is wanted."""
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
        """List the commands with their first lines; one whose extra is missing says so."""
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
    """Classify texts on a mobile, an edge server or a cloud server, whichever is worth it."""


def main() -> None:
    """Run the command; an expected error is one sentence on stderr and exit code 2."""
    try:
        dimee()
    except DimeeError as error:
        click.echo(f"dimee: {error.message}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


if __name__ == "__main__":
    main()
