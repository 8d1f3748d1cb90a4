"""`mds retention`: shows and deletes what is older than MDS_RETENTION_DAYS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import click
import psycopg
from rich.table import Table

from market_data_store.cli.choosing import NameOf
from market_data_store.cli.ending import Ended
from market_data_store.cli.terminal import confirm_deletion, console, moment
from market_data_store.config import settings
from market_data_store.files.archiving import archiver
from market_data_store.postgres import aging, retention
from market_data_store.postgres.connection import connect, unavailable
from market_data_store.postgres.leaving import Archive
from market_data_store.postgres.retention import Expired


@click.command("retention")
@click.option("--dataset", type=NameOf(aging.names), multiple=True, help="Only this; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Only count, delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def command(dataset: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete what is older than MDS_RETENTION_DAYS, after showing it and asking.

    With MDS_RETENTION_AUTO=1 the monitor does that by itself. Without a terminal this command needs --yes. It uses
    ADMIN_DATABASE_URL if that is set: a chunk of TimescaleDB, or a partition, is dropped by its owner only. With
    MDS_ARCHIVE_DIR, each partition is kept there as a Parquet file first.

    \b
    mds retention --dry-run
    mds retention --dataset ticks --yes
    """
    configured = settings()
    days = configured.retention_days
    if missing := [name for name in dataset if name not in days]:
        raise click.UsageError(f"--dataset {missing[0]}: is not in MDS_RETENTION_DAYS, which says how long it is kept")
    chosen = {name: days[name] for name in days if not dataset or name in dataset}
    if not chosen:
        raise click.UsageError("MDS_RETENTION_DAYS is not set; set it to such as ticks=30,quotes=7")
    try:
        with connect(configured.migration_url) as connection:
            archive = archiver(configured.archive_dir)
            found = [
                retention.count(connection, name, at, archives=archive is not None)
                for name, at in retention.limits_of(chosen).items()
            ]
            old = [each for each in found if each.number]
            if dry_run or not old:
                _show(found, "would be deleted", as_json=as_json)
                return
            if not as_json:
                _show(found, "to be deleted", as_json=False)
            confirm_deletion(f"{', '.join(map(str, old))} for good", yes=yes)
            _show(_deleted(connection, old, archive), "deleted", as_json=as_json)
    except psycopg.Error as error:
        raise unavailable(error) from error


def _deleted(
    connection: psycopg.Connection[tuple[object, ...]], old: Sequence[Expired], archive: Archive | None
) -> list[Expired]:
    """Delete what was counted, and nothing that has become too old since."""
    done: list[Expired] = []
    try:
        for each in old:
            done.append(Expired(each.dataset, each.older_than))
            for part in retention.delete(connection, each.dataset, each.older_than, archive=archive):
                done[-1] += part
    except Ended as end:
        end.facts = (
            f"{', '.join(str(each) for each in done if each.number) or 'nothing'} deleted; run it again to go on"
        )
        raise
    return done


def _show(found: Sequence[Expired], what: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2, default=datetime.isoformat))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("dataset", "older than", what):
        table.add_column(name, no_wrap=True, justify="right" if name == what else "left")
    for each in found:
        plain = each.wholes is None
        number = f"{each.number or 0:,}" if plain else str(each).removesuffix(f" of {each.dataset}")
        table.add_row(each.dataset, moment(each.older_than), number)
    console.print(table)
