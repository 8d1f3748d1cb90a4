"""`mds head`: shows the newest rows of a dataset."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import click
import msgspec

from market_data_store.cli.choosing import DATASET, chosen, names
from market_data_store.cli.columns import aligned
from market_data_store.config import settings
from market_data_store.datasets import DATASETS
from market_data_store.postgres.added_columns import as_stored
from market_data_store.postgres.connection import connect
from market_data_store.postgres.series import newest_rows

#: Writes exact numbers with all of their digits.
_encoder = msgspec.json.Encoder(decimal_format="number")


@click.command("head")
@click.argument("dataset", type=DATASET)
@names("rows")
@click.option("-n", "--limit", type=click.IntRange(1), default=10, show_default=True, help="Maximum number of rows.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of rows as `mds export` writes them.")
def command(dataset: str, limit: int, as_json: bool, **given: tuple[str, ...]) -> None:
    """Show the rows of DATASET with the newest times, newest first.

    Columns that are empty in all of these rows are left out.

    \b
    mds head bars
    mds head ticks --provider truefx --symbol USD/JPY -n 3
    mds head news --json
    """
    with connect(settings().require_database_url()) as connection:
        rows = newest_rows(connection, as_stored(connection, DATASETS[dataset]), chosen(dataset, **given), limit)
    if as_json:
        click.echo(msgspec.json.format(_encoder.encode(rows), indent=2))
    elif not rows:
        click.echo("no rows match" if any(given.values()) else f"no {dataset} are stored")
    else:
        header = [name for name in rows[0] if any(row[name] is not None for row in rows)]
        for line in aligned(header, [[_cell(row[name]) for name in header] for row in rows]):
            click.echo(line)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
