"""`mds migrate`: brings the database's schema up to date."""

from __future__ import annotations

import sys

import click

from market_data_store.cli.terminal import console
from market_data_store.config import settings, without_password
from market_data_store.postgres import schema


@click.command("migrate")
@click.option("--down", is_flag=True, help="Undo the newest migration. This deletes the data in its tables.")
@click.option("--status", is_flag=True, help="Only show the database's revision.")
def command(down: bool, status: bool) -> None:
    """Bring the database's schema up to date.

    \b
    mds migrate
    mds migrate --status
    """
    url = settings().migration_url
    if status:
        found = schema.revisions(url)
        console.print(f"revision {found.current or 'none'} of {found.head}: {found.state}")
        sys.exit(0 if found.up_to_date else 1)
    if down and sys.stdin.isatty():
        click.confirm(f"This drops tables and their data in {without_password(url)}. Continue?", abort=True)
    before, after = schema.downgrade(url) if down else schema.upgrade(url)
    console.print(f"revision {before.current or 'none'} -> {after.current or 'none'}")
