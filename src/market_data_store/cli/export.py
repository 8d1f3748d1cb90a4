"""`mds export`: writes a dataset's rows to a file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
from rich.console import Console

from market_data_store.cli.choosing import DATASET, chosen, names, time
from market_data_store.cli.ending import Ended
from market_data_store.cli.terminal import printable, progress
from market_data_store.config import settings
from market_data_store.datasets import dataset_named
from market_data_store.files import exporting
from market_data_store.files.exporting import Exported
from market_data_store.files.nearest import what_there_is
from market_data_store.files.written_formats import FORMATS, STDOUT, written_format
from market_data_store.postgres.added_columns import as_stored
from market_data_store.postgres.connection import connect


@click.command("export")
@click.argument("dataset", type=DATASET)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@names("rows")
@click.option("--start", callback=time, metavar="TIME", help="Only rows from this time (ts) on; default zone: UTC.")
@click.option("--end", callback=time, metavar="TIME", help="Only rows before this time.")
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Format of the file, whatever its name.")
def command(
    dataset: str,
    file: Path,
    start: datetime | None,
    end: datetime | None,
    format_: str | None,
    **given: tuple[str, ...],
) -> None:
    """Write the rows of DATASET to FILE (.csv, .ndjson or .jsonl, plus .gz to compress it, or .parquet).

    A FILE of - writes NDJSON to standard output. `mds load FILE --dataset DATASET` reads the file back. The file has
    all columns except enqueued_at, the time at which a row was sent. So loaded rows count as sent when they are loaded,
    and replace older stored rows. The same rows make the same file. FILE is replaced when the new one is complete.

    \b
    mds export bars bars.csv.gz --provider CME --symbol 6EH4 --interval 1m --start 2024-01-02 --end 2024-01-03
    mds export bars two.parquet --symbol AAPL --symbol MSFT
    mds export ticks ticks.ndjson.gz
    mds export news - | grep AAPL
    """
    wanted = dataset_named(dataset)
    criteria = {**chosen(dataset, **given), "start": start, "end": end}
    written_format(file, format_)  # refuse a wrong name before connecting
    to_stdout = file == STDOUT
    console = Console(highlight=False, stderr=to_stdout)
    with connect(settings().require_database_url()) as connection, progress(console) as show:
        wanted = as_stored(connection, wanted)

        def on_progress(so_far: Exported, total: int) -> None:
            show(so_far.rows, total, f"{so_far.rows:,} of about {total:,} rows", f"{so_far.rate:,.0f} rows/s")

        try:
            done = exporting.export(connection, wanted, file, criteria, format_=format_, on_progress=on_progress)
        except Ended as end_:
            end_.facts = "the output is not complete" if to_stdout else f"{file.name} was not written"
            raise
        there_is = "" if done.rows or done.unread else what_there_is(connection, wanted, criteria)
    if done.unread:
        return
    details = f"{done.rows:,} rows, {done.seconds:.2f} s, {done.rate:,.0f} rows/s"
    console.print(f"{file.name}: {details}", markup=False)
    if there_is:
        click.echo(printable(there_is), err=True)
