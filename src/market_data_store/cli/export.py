"""`mds export`: a dataset's rows into a file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from market_data_store.cli.terminal import progress
from market_data_store.config import settings
from market_data_store.datasets import DATASETS, dataset_named
from market_data_store.files import exporting
from market_data_store.files.exporting import Exported
from market_data_store.files.reader import format_of
from market_data_store.postgres.connection import connect
from market_data_store.wire.moments import aware


def _moment(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else aware(datetime.fromisoformat(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time; write 2024-01-02 or 2024-01-02T14:30:00Z") from None


@click.command("export")
@click.argument("dataset", type=click.Choice(list(DATASETS)))
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--provider", help="Rows of this provider alone.")
@click.option("--symbol", help="Rows of this symbol alone.")
@click.option("--interval", help="Bars of this interval alone, such as 1m.")
@click.option("--start", callback=_moment, metavar="TIME", help="Rows from this time (ts) on; UTC unless it says more.")
@click.option("--end", callback=_moment, metavar="TIME", help="Rows before this time.")
def command(dataset: str, file: Path, symbol: str | None, interval: str | None, **criteria: Any) -> None:
    """Write the rows of DATASET to FILE (.csv, .ndjson, .jsonl, also .gz; - writes NDJSON to standard output).

    `mds load FILE --dataset DATASET` reads it back. It has all columns but enqueued_at, which says when a row was sent:
    what is loaded counts as sent then, and wins over what is stored. The same rows make the same file.

    \b
    mds export bars bars.csv.gz --provider CME --symbol 6EH4 --interval 1m --start 2024-01-02 --end 2024-01-03
    mds export ticks ticks.ndjson.gz
    mds export news - | grep AAPL
    """
    chosen = dataset_named(dataset)
    if interval is not None and "interval" not in chosen.key:
        raise click.UsageError(f"--interval {interval}: {dataset} have none; bars alone do")
    to_stdout = file == exporting.STDOUT
    if not to_stdout:
        format_of(file)  # before anything else is asked for
    console = Console(highlight=False, stderr=to_stdout)
    criteria |= {"symbol": symbol and symbol.upper(), "interval": interval}
    with connect(settings().require_database_url()) as connection, progress(console) as show:

        def on_progress(so_far: Exported, total: int) -> None:
            show(so_far.rows, total, f"{so_far.rows:,} of about {total:,} rows", f"{so_far.rate:,.0f} rows/s")

        done = exporting.export(connection, chosen, file, criteria, on_progress=on_progress)
    details = f"{done.rows:,} rows, {done.seconds:.2f} s, {done.rate:,.0f} rows/s"
    console.print(f"{file.name}: {details}", markup=False)
