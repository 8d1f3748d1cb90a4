"""`mds export`: writes a dataset's rows to a file."""

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


def _time(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else aware(datetime.fromisoformat(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a time; write 2024-01-02 or 2024-01-02T14:30:00Z") from None


@click.command("export")
@click.argument("dataset", type=click.Choice(list(DATASETS)))
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--provider", help="Only rows of this provider.")
@click.option("--symbol", help="Only rows of this symbol.")
@click.option("--interval", help="Only bars of this interval, such as 1m.")
@click.option("--start", callback=_time, metavar="TIME", help="Only rows from this time (ts) on; default zone: UTC.")
@click.option("--end", callback=_time, metavar="TIME", help="Only rows before this time.")
def command(dataset: str, file: Path, symbol: str | None, interval: str | None, **criteria: Any) -> None:
    """Write the rows of DATASET to FILE (.csv, .ndjson or .jsonl, plus .gz to compress it).

    A FILE of - writes NDJSON to standard output. `mds load FILE --dataset DATASET` reads the file back. The file has
    all columns except enqueued_at, the time at which a row was sent. So loaded rows count as sent when they are loaded,
    and replace older stored rows. The same rows make the same file.

    \b
    mds export bars bars.csv.gz --provider CME --symbol 6EH4 --interval 1m --start 2024-01-02 --end 2024-01-03
    mds export ticks ticks.ndjson.gz
    mds export news - | grep AAPL
    """
    chosen = dataset_named(dataset)
    if interval is not None and "interval" not in chosen.key:
        raise click.UsageError(f"--interval {interval}: {dataset} have no interval; only bars do")
    to_stdout = file == exporting.STDOUT
    if not to_stdout:
        format_of(file)  # refuse a wrong name before connecting
    console = Console(highlight=False, stderr=to_stdout)
    criteria |= {"symbol": symbol, "interval": interval}
    with connect(settings().require_database_url()) as connection, progress(console) as show:

        def on_progress(so_far: Exported, total: int) -> None:
            show(so_far.rows, total, f"{so_far.rows:,} of about {total:,} rows", f"{so_far.rate:,.0f} rows/s")

        done = exporting.export(connection, chosen, file, criteria, on_progress=on_progress)
    details = f"{done.rows:,} rows, {done.seconds:.2f} s, {done.rate:,.0f} rows/s"
    console.print(f"{file.name}: {details}", markup=False)
