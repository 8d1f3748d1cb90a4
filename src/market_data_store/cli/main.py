"""The command `mds`: the group, and what becomes of an error.

A command's module is imported when the command is named, so that `mds --help` costs no more than click.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from types import MappingProxyType

import click

from market_data_store.errors import MarketDataStoreError

#: By name: the module of the command beside this one, and its one line in `mds --help`.
_COMMANDS = MappingProxyType(
    {
        "dead-letters": ("dead_letters", "Rows and messages that could not be written."),
        "demo": ("demo", "Send a month of real bars through the store and compare."),
        "export": ("export", "Write a dataset's rows to a file."),
        "flower": ("flower", "Run Flower, which shows tasks, workers and the queue."),
        "jobs": ("jobs", "List job runs, such as those of `mds load`."),
        "load": ("load", "Send the rows of a file through the store."),
        "migrate": ("migrate", "Bring the database's schema up to date."),
        "monitor": ("monitor", "Watch the queue and publish feedback to producers."),
        "status": ("status", "Show what broker, workers and database say."),
        "up": ("up", "Run the whole store on this machine until Ctrl-C."),
    }
)


class _Commands(click.Group):
    """Knows the commands by name, and imports one when it is asked for."""

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
    """Run `mds`; an error of ours is one line and exit code 1."""
    # What was started ends with us, in order. SIGINT too: a shell starts background jobs with it ignored.
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
    """Market data, written to Postgres in batches by Celery workers.

    \b
    Try it:           mds demo
    Work with it:     mds up
    Load a file:      mds load bars.csv.gz --dataset bars --provider CME --interval 1m --symbol 6EH4
    """
