"""`mds grants`: prints the least rights that each process needs in Postgres."""

from __future__ import annotations

import click
from psycopg.conninfo import conninfo_to_dict

from market_data_store.config import settings
from market_data_store.postgres.grants import Roles, grants


@click.command("grants")
@click.option("--worker", default="mds_worker", show_default=True, help="The role of the worker.")
@click.option("--web", default="mds_web", show_default=True, help="The role of web.")
@click.option("--monitor", default="mds_monitor", show_default=True, help="The role of the monitor, for the upkeep.")
@click.option("--operator", default="mds_operator", show_default=True, help="The role of mds load, dead-letters, ...")
@click.option("--reader", default="mds_reader", show_default=True, help="The role of programs that only read.")
def command(worker: str, web: str, monitor: str, operator: str, reader: str) -> None:
    """Print GRANTs with which each process may do what it needs, and nothing else.

    The roles must exist. Run it as the role of ADMIN_DATABASE_URL, which migrates, after each migration.

    \b
    mds grants | psql "$ADMIN_DATABASE_URL"
    """
    database = str(conninfo_to_dict(settings().migration_url).get("dbname", ""))
    roles = Roles(worker=worker, web=web, monitor=monitor, operator=operator, reader=reader)
    for statement in grants(database, roles):
        click.echo(statement)
