"""`mds load`: sends a file's rows through the store."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from market_data_store.cli.recording import recorded
from market_data_store.cli.terminal import console, progress
from market_data_store.config import settings
from market_data_store.datasets import DATASETS, dataset_named
from market_data_store.files.loading import Progress, Summary, load_file
from market_data_store.files.reader import RowFile


@click.command("load")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dataset", required=True, type=click.Choice(list(DATASETS)), help="Dataset of the rows.")
@click.option("--provider", help="Provider for rows without one.")
@click.option("--interval", help="Interval for bars without one, such as 1m.")
@click.option("--symbol", help="Symbol for rows without one.")
@click.option("--map", "columns", multiple=True, metavar="NAME=COLUMN", help="Fill field NAME from this column.")
def command(
    file: Path, dataset: str, provider: str | None, interval: str | None, symbol: str | None, columns: tuple[str, ...]
) -> None:
    """Send the rows of FILE (.csv, .ndjson or .jsonl, plus .gz if it is gzipped) through the store.

    Prints the number and the reason of each rejected row, which is kept in the table dead_letters. Loading a file again
    changes nothing. `mds jobs` lists the loads.

    \b
    mds load 6EH4.csv.gz --dataset bars --provider CME --interval 1m --symbol 6EH4
    mds load ticks.csv --dataset quotes --provider truefx --symbol USD/JPY --map ts=when
    """
    options = {"provider": provider, "interval": interval, "symbol": symbol}
    defaults = {name: value for name, value in options.items() if value is not None}
    source = RowFile(file, dataset_named(dataset), _column_map(columns))
    settings().require_broker_url()
    if load_and_show(source, defaults).rejected:
        sys.exit(1)


def load_and_show(source: RowFile, defaults: Mapping[str, Any], *, job_name: str = "mds load") -> Summary:
    """Load a file and record it as a job run; print progress, the reason of each reject, and a summary."""
    run = recorded(job_name, source.dataset.name, defaults.get("provider"), {"file": source.path.name})
    with progress() as show:

        def on_progress(now: Progress) -> None:
            summary = now.summary
            show(
                summary.stored + summary.rejected,
                now.expected_rows,
                f"sent {summary.sent:,}",
                f"stored {summary.stored:,}",
                f"{summary.rate:,.0f} rows/s",
                f"depth {now.depth:,}",
            )

        def on_reject(row: int, reason: str) -> None:
            console.print(f"row {row:,}: {reason}", markup=False, soft_wrap=True)

        summary = load_file(source, defaults, recording=run, on_progress=on_progress, on_reject=on_reject)
    _show(summary, source)
    return summary


def _show(summary: Summary, source: RowFile) -> None:
    counts = summary.counts
    console.print(f"{source.path.name}: {summary.seconds:.2f} s, {summary.rate:,.0f} rows/s", markup=False)
    console.print(f"rows sent     {summary.sent:,}")
    details = f"{counts.written:,} written, {counts.unchanged:,} unchanged, {counts.stale:,} stale"
    if counts.superseded:
        details += f", {counts.superseded:,} superseded"
    console.print(f"rows stored   {summary.stored:,} ({details})")
    console.print(f"dead letters  {summary.rejected:,}")


def _column_map(options: tuple[str, ...]) -> dict[str, str]:
    columns = {}
    for option in options:
        name, separator, column = option.partition("=")
        if not (name and separator and column):
            raise click.UsageError(f"--map {option}: write NAME=COLUMN, such as --map ts=timestamp")
        columns[name] = column
    return columns
