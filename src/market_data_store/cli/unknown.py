"""`mds datasets unknown`: lists the fields that were seen and that their datasets do not know."""

from __future__ import annotations

import json
from typing import Any

import click
import psycopg

from market_data_store.cli.choosing import DATASET
from market_data_store.cli.columns import aligned
from market_data_store.cli.terminal import moment, printable
from market_data_store.config import settings
from market_data_store.datasets import DATASETS
from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres.connection import connect, unavailable
from market_data_store.postgres.unknown_fields import UnknownField, listed
from market_data_store.wire.seen import OTHERS

_HEADER = ("dataset", "field", "kinds", "rows", "first seen", "last seen", "what becomes of it")
_FATES = {"keep": "kept in metadata", "reject": "rejects its rows", "add": "a column at the next mds migrate"}


@click.command("unknown")
@click.argument("dataset", required=False, type=DATASET)
@click.option("--json", "as_json", is_flag=True, help="Print a list for programs.")
def command(dataset: str | None, as_json: bool) -> None:
    """List the fields that rows had and DATASET, or any dataset, does not know.

    For each its name, the kinds of its values, in how many rows it was seen, when first and last, and what becomes of
    it, which the contract of the dataset says (docs/own-datasets.md). Values are not shown. The newest come first. Of
    a dataset some 200 names are counted by themselves, and the others together.

    \b
    mds datasets unknown
    mds datasets unknown bars --json
    """
    try:
        with connect(settings().require_database_url()) as connection:
            found = listed(connection, dataset)
    except psycopg.errors.UndefinedTable as error:
        raise DatabaseUnavailable("unknown_fields: the table is not there; run `mds migrate`") from error
    except psycopg.Error as error:
        raise unavailable(error) from error
    if as_json:
        click.echo(json.dumps([_object(each) for each in found], indent=2))
    elif not found:
        click.echo(f"no row {f'of {dataset} ' if dataset else ''}had a field that its dataset does not know")
    else:
        for line in aligned(_HEADER, [_cells(each) for each in found]):
            click.echo(line)


def _cells(each: UnknownField) -> tuple[str, ...]:
    name = "(others)" if each.name == OTHERS else printable(each.name)
    times = moment(each.first_at), moment(each.last_at)
    return each.dataset, name, ", ".join(each.kinds), f"{each.rows:,}", *times, _fate(each)


def _fate(each: UnknownField) -> str:
    if each.column is not None:
        return f"has the column {each.column}"
    if each.dataset not in DATASETS:
        return "the dataset is not declared here"
    return _FATES[DATASETS[each.dataset].unknown]


def _object(each: UnknownField) -> dict[str, Any]:
    contract = DATASETS[each.dataset].unknown if each.dataset in DATASETS else None
    return {
        "dataset": each.dataset,
        "name": None if each.name == OTHERS else each.name,
        "kinds": each.kinds,
        "rows": each.rows,
        "first_ts": each.first_at.timestamp(),
        "last_ts": each.last_at.timestamp(),
        "unknown": contract,
        "column": each.column,
    }
