"""`mds series`: lists the series that are stored."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click

from market_data_store.cli.choosing import DATASET, chosen, names
from market_data_store.cli.columns import aligned
from market_data_store.cli.terminal import moment
from market_data_store.config import settings
from market_data_store.datasets import DATASETS
from market_data_store.postgres.connection import connect
from market_data_store.postgres.series import Series, series_of


@click.command("series")
@click.argument("dataset", required=False, type=DATASET)
@names("series")
@click.option("--count", is_flag=True, help="Count the rows instead of estimating them; this reads the whole table.")
@click.option("--json", "as_json", is_flag=True, help="Print a list for programs.")
def command(dataset: str | None, count: bool, as_json: bool, **given: tuple[str, ...]) -> None:
    """List the series of DATASET, or of all datasets: provider, symbol, interval, first and last time, rows.

    Postgres finds the series by the key's index, so this takes milliseconds on a large table, too. A number of rows
    that begins with ~ is an estimate.

    \b
    mds series
    mds series bars --provider CME
    mds series ticks --symbol BTC-USD --symbol ETH-USD --count
    mds series --json
    """
    datasets = [name for name in DATASETS if dataset in (None, name)]
    if dataset is None and given["interval"]:
        datasets = [name for name in datasets if "interval" in DATASETS[name].key]
    with connect(settings().require_database_url()) as connection:
        found = [
            (name, each)
            for name in datasets
            for each in series_of(connection, DATASETS[name], _criteria(name, given), count=count)
        ]
    if as_json:
        click.echo(json.dumps([_object(name, each) for name, each in found], indent=2, ensure_ascii=False))
    elif not found:
        click.echo("no series match" if any(given.values()) else "nothing is stored")
    else:
        header = ("dataset", "provider", "symbol", "interval", "first", "last", "rows")
        for line in aligned(header, [_cells(name, each) for name, each in found], right=("rows",)):
            click.echo(line)


def _criteria(dataset: str, given: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    criteria = chosen(dataset, **given)
    if criteria["symbol"] and "symbol" not in DATASETS[dataset].key:
        criteria["symbol"] = []  # of news, a symbol is not a series
    return criteria


def _cells(dataset: str, series: Series) -> tuple[str, ...]:
    rows = f"{'' if series.exact else '~'}{series.rows:,}"
    names = series.provider, series.symbol or "", series.interval or ""
    return dataset, *names, moment(series.first), moment(series.last), rows


def _object(dataset: str, series: Series) -> dict[str, Any]:
    def iso(time: datetime) -> str:
        return time.isoformat()

    return {
        "dataset": dataset,
        "provider": series.provider,
        "symbol": series.symbol,
        "interval": series.interval,
        "first": iso(series.first),
        "last": iso(series.last),
        "rows": series.rows,
        "exact": series.exact,
    }
