"""`mds partitions`: lists the partitions of the datasets' tables, and converts plain tables to partitioned ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
import psycopg

from market_data_store.cli.choosing import DATASET, GroupOfDatasets
from market_data_store.cli.columns import aligned
from market_data_store.cli.terminal import NeedsYes, moment, printable
from market_data_store.config import settings
from market_data_store.datasets import DATASETS, Dataset
from market_data_store.datasets.registry import span_of
from market_data_store.errors import DatasetUnavailable, MarketDataStoreError
from market_data_store.postgres import partitions_wanted
from market_data_store.postgres.connection import connect, unavailable
from market_data_store.postgres.converting import convert
from market_data_store.postgres.leaving import begun
from market_data_store.postgres.partitions import is_partitioned, partitions_of, size_of


@click.group("partitions", cls=GroupOfDatasets)
def command() -> None:
    """List the partitions of DATASET, or of all datasets; `convert` makes a plain table a partitioned one.

    Which datasets have partitions is said by MDS_PARTITIONS and by `partition` in a declaration.

    \b
    mds partitions
    mds partitions ticks --json
    mds partitions convert ticks
    """


@command.command("list")
@click.argument("dataset", required=False, type=DATASET)
@click.option("--json", "as_json", is_flag=True, help="Print a list for programs.")
def list_(dataset: str | None, as_json: bool) -> None:
    """List the partitions of DATASET, or of all datasets; `list` may be left out.

    A number of rows is Postgres's estimate, and empty before the first ANALYZE. Bytes are with indexes. The state is
    attached, leaving (it is being detached, and its rows are not seen any more), detached (it is about to be archived
    or dropped) or wanted (rows wait for it).
    """
    try:
        with connect(settings().migration_url) as connection:
            found = [each for name in DATASETS if dataset in (None, name) for each in _found(connection, name)]
    except psycopg.Error as error:
        raise unavailable(error) from error
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not found:
        click.echo("no partitions; MDS_PARTITIONS=ticks=month asks for some")
    else:
        header = ("dataset", "partition", "from", "to", "rows", "bytes", "state")
        for line in aligned(header, [_cells(each) for each in found], right=("rows", "bytes")):
            click.echo(line)


@command.command("convert")
@click.argument("dataset", type=DATASET)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def convert_(dataset: str, yes: bool, as_json: bool) -> None:
    """Make the plain table of DATASET a partitioned one, with its rows, after asking.

    The rows are copied in one transaction, which takes about a minute for 10 million of them, and as much disk again
    until its end. Meanwhile the dataset can be read and not written: its messages wait, and are written afterwards.
    Whatever ends this command before its end leaves the table as it was; run it again then. It uses ADMIN_DATABASE_URL.

    \b
    mds partitions convert ticks
    mds partitions convert ticks --yes
    """
    given, span = DATASETS[dataset], span_of(DATASETS[dataset])
    if span is None:
        raise click.UsageError(
            f"{dataset}: has no partitions by MDS_PARTITIONS or its declaration; set MDS_PARTITIONS={dataset}=month"
        )
    try:
        with connect(settings().migration_url) as connection:
            if is_partitioned(connection, given):
                raise click.UsageError(f"{dataset}: is partitioned already; `mds partitions {dataset}` lists them")
            _confirm(given, size_of(connection, given), yes=yes)
            rows = convert(connection, given, span, lambda line: click.echo(f"{dataset}: {line}", err=True))
    except DatasetUnavailable as error:
        raise MarketDataStoreError(f"{dataset}: {error.reason}") from error
    except psycopg.Error as error:
        raise unavailable(error) from error
    if as_json:
        click.echo(json.dumps({"dataset": dataset, "span": span.value, "rows": rows}))
    else:
        click.echo(f"{dataset}: {rows:,} rows are in partitions by {span.value}")


def _confirm(dataset: Dataset, size_bytes: int, *, yes: bool) -> None:
    what = f"copies {dataset.table.name} ({size_bytes:,} bytes); rows of {dataset.name} wait meanwhile"
    if yes:
        return
    if not sys.stdin.isatty():
        raise NeedsYes(f"this {what}; give --yes to do that without being asked")
    click.confirm(f"This {what}. Continue?", abort=True)


def _found(connection: psycopg.Connection[Any], name: str) -> Iterator[dict[str, Any]]:
    span = span_of(DATASETS[name])
    for each in partitions_of(connection, DATASETS[name]):
        yield {
            **{"dataset": name, "partition": each.name, "from": _iso(each.starts), "to": _iso(each.ends)},
            **{"rows": each.rows, "bytes": each.size_bytes, "state": each.state, "trouble": None},
        }
    for gone in begun(connection, DATASETS[name]) if span is not None else ():
        if gone.exists and not gone.is_attached:
            yield {
                **{"dataset": name, "partition": gone.name, "from": _iso(gone.starts), "to": _iso(gone.ends)},
                **{"rows": None, "bytes": None, "state": "detached", "trouble": None},
            }
    for wanted in partitions_wanted.wanted(connection) if span is not None else ():
        if wanted.dataset == name and span is not None:
            yield {
                **{"dataset": name, "partition": None},
                **{"from": _iso(wanted.starts), "to": _iso(span.after(wanted.starts)), "rows": None, "bytes": None},
                **{"state": "wanted", "trouble": wanted.trouble},
            }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _cells(each: dict[str, Any]) -> tuple[str, ...]:
    times = ("" if each[name] is None else moment(datetime.fromisoformat(each[name])) for name in ("from", "to"))
    numbers = ("" if each[name] is None else f"{each[name]:,}" for name in ("rows", "bytes"))
    state = each["state"] if each["trouble"] is None else f"{each['state']}: {printable(each['trouble'])}"
    return each["dataset"], each["partition"] or "", *times, *numbers, state
