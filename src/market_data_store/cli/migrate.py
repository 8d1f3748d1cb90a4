"""`mds migrate`: brings the database's schema up to date."""

from __future__ import annotations

import sys

import click

from market_data_store.cli.ending import Ended
from market_data_store.cli.terminal import confirm_deletion, console, say
from market_data_store.config import settings
from market_data_store.connections.urls import without_password
from market_data_store.postgres import schema
from market_data_store.postgres.connection import wait_for_server
from market_data_store.postgres.schema import Revisions

#: Of `mds migrate` and `mds release`.
wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0.0),
    default=30.0,
    show_default=True,
    help="Seconds to wait for a server that does not answer.",
)


@click.command("migrate")
@click.option("--down", is_flag=True, help="Undo the newest migration. This deletes the data in its tables.")
@click.option("--status", is_flag=True, help="Only show the database's revision, and what is due.")
@click.option("--yes", is_flag=True, help="With --down: do not ask for confirmation.")
@wait_option
def command(down: bool, status: bool, yes: bool, wait_s: float) -> None:
    """Bring the database's schema up to date, and the tables of datasets of your own.

    Without a terminal, --down needs --yes.

    \b
    mds migrate
    mds migrate --status
    """
    url = settings().migration_url
    if status:
        found = schema.revisions(url)
        console.print(f"revision {found.current or 'none'} of {found.head}: {found.state}")
        tables = schema.due_tables(url)
        for line in tables:
            console.print(f"due: {line}", markup=False)
        sys.exit(0 if found.up_to_date and not tables else 1)
    if not down:
        wait_for_server(url, wait_s, say)
    try:
        if down:
            _confirm_down(url, yes)
        before, after = schema.downgrade(url) if down else schema.upgrade(url, click.echo)
    except Ended as end:
        end.facts = "the step that was running is undone; see `mds migrate --status`"
        raise
    console.print(f"revision {before.current or 'none'} -> {after.current or 'none'}")


def _confirm_down(url: str, yes: bool) -> None:
    found = schema.revisions(url)
    if found.current is None:
        return
    for line in _losses(url, found):
        click.echo(line, err=True)
    what = f"the tables and columns that revision {found.current} made, and their data, in {without_password(url)}"
    confirm_deletion(what, yes=yes)


def _losses(url: str, found: Revisions) -> list[str]:
    """Return lines that say what undoing the newest migration deletes; they are shown before the question."""
    if found.is_newer:
        return []  # the downgrade says so
    return [str(lost) for lost in schema.to_be_dropped(url)]
