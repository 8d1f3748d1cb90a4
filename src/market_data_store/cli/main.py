"""The command `mds`: the group of commands, and how errors are reported.

A command's module is imported only when the command is named, so that `mds --help` costs no more than click.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from types import MappingProxyType

import click

from market_data_store.errors import MarketDataStoreError

#: For each command: its module in this package, and its line in `mds --help`.
_COMMANDS = MappingProxyType(
    {
        "dead-letters": ("dead_letters", "List, replay and delete what could not be written."),
        "demo": ("demo", "Send a month of real bars through the store and compare."),
        "export": ("export", "Write a dataset's rows to a file."),
        "flower": ("flower", "Run Flower, which shows tasks, workers and the queue."),
        "jobs": ("jobs", "List job runs, such as those of `mds load`."),
        "load": ("load", "Send the rows of a file through the store."),
        "migrate": ("migrate", "Bring the database's schema up to date."),
        "monitor": ("monitor", "Watch the queue and publish feedback to producers."),
        "status": ("status", "Show the state of broker, workers and database."),
        "up": ("up", "Run the whole store on this machine until Ctrl-C."),
    }
)


class _Commands(click.Group):
    """Lists the commands by name, and imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"{__package__}.{_COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


def main() -> None:
    """Run `mds`; print a `MarketDataStoreError` as one line, and exit with 1."""
    # Exit in order, so that child processes are stopped. SIGINT too: a shell starts background jobs with it ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MarketDataStoreError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="market-data-store", prog_name="mds")
def cli() -> None:
    """Write market data to Postgres in batches, with Celery workers.

    \b
    Try it:           mds demo
    Work with it:     mds up
    Load a file:      mds load bars.csv.gz --dataset bars --provider CME --interval 1m --symbol 6EH4
    """
