"""The command `mds`: the group of commands, and how errors are reported.

A command's module is imported only when the command is named, so that `mds --help` costs no more than click.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import MappingProxyType
from typing import Any

import click

from market_data_store.cli import ending
from market_data_store.cli.ending import Ended
from market_data_store.config.starting import WRONG_SETTINGS, begin_log, report
from market_data_store.errors import ConfigurationError, MarketDataStoreError

#: For each command: its module in this package, and its line in `mds --help`.
_COMMANDS = MappingProxyType(
    {
        "datasets": ("datasets", "List the datasets with their fields."),
        "dead-letters": ("dead_letters", "List, replay and delete what could not be written."),
        "demo": ("demo", "Send a month of real bars through the store and compare."),
        "doctor": ("doctor", "Check settings, servers and processes, and say what to do."),
        "export": ("export", "Write a dataset's rows to a file."),
        "flower": ("flower", "Run Flower, which shows tasks, workers and the queue."),
        "grants": ("grants", "Print the least rights that each process needs in Postgres."),
        "head": ("head", "Show the newest rows of a dataset."),
        "jobs": ("jobs", "List job runs, such as those of `mds load`."),
        "load": ("load", "Send the rows of a file through the store."),
        "migrate": ("migrate", "Bring the database's schema up to date."),
        "monitor": ("monitor", "Watch the queue and publish feedback to producers."),
        "partitions": ("partitions", "List the partitions of tables, and partition plain ones."),
        "release": ("release", "Check what can stop a deployment, then migrate."),
        "release-held": ("release_held", "Give what workers have set aside back to the queue."),
        "retention": ("retention", "Delete what is older than MDS_RETENTION_DAYS."),
        "series": ("series", "List what is stored: providers, symbols, times, rows."),
        "status": ("status", "Show the state of broker, workers and database."),
        "top": ("top", "Watch the store on a screen that stays up to date."),
        "up": ("up", "Run the whole store on this machine until Ctrl-C."),
    }
)


#: The commands that are processes of the store: what they say is a log.
_LOGGED = MappingProxyType({"migrate": "release", "monitor": "monitor", "flower": "flower", "up": "up"})


class _Commands(click.Group):
    """Lists the commands by name, and imports one only when it is used.

    The context's object is called when a command is about to begin, if there is one.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"{__package__}.{_COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        if ctx.obj is not None:
            ctx.obj()
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Ended as end:  # click would print an empty line for it, and call it an abort
            if not ending.is_endless():
                click.secho(str(end), fg="red", err=True)
            raise SystemExit(ending.status(end.number)) from end

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


def main() -> None:
    """Run `mds`; print a `MarketDataStoreError` as one line, and exit with 1, or with 2 if settings are wrong.

    After SIGTERM or SIGINT the exit status is 143 or 130, and one line says what was done, see `ending`.
    """
    ending.exit_at_once()
    command, *options = sys.argv[1:] or [""]
    if command in _LOGGED and not {"-h", "--help"}.intersection(options):
        begin_log(_LOGGED[command])
    try:
        cli(standalone_mode=False, obj=ending.raise_ended)
    except click.exceptions.Abort:  # the answer was no, or a signal came while it was awaited
        _exit("Nothing was done.", 1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ConfigurationError as error:
        click.secho(report(error), fg="red", err=True)
        sys.exit(WRONG_SETTINGS)
    except MarketDataStoreError as error:
        _exit(f"error: {error}", 1)
    except Exception as error:
        if ending.came() is None:
            raise
        _exit("" if ending.is_cause_of(error) else f"{type(error).__name__}: {error}", 1)
    finally:
        ending.exit_at_once()


def _exit(line: str, status: int) -> None:
    """Print the line and exit; after a signal, with the status of that signal."""
    number = ending.came()
    if number is not None:
        end = Ended(number)
        end.facts = line
        line, status = "" if ending.is_endless() and not line else str(end), ending.status(number)
    if line:
        click.secho(line, fg="red", err=True)
    sys.exit(status)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="market-data-store", prog_name="mds")
def cli() -> None:
    """Write market data to Postgres in batches, with Celery workers.

    \b
    Try it:           mds demo
    Work with it:     mds up
    Load a file:      mds load examples/bars.csv.gz --dataset bars
    Look at it:       mds series
    """
