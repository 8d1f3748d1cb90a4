"""`mds demo`: sends a month of real bars through the store, and checks that Postgres holds them unchanged."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
import psycopg

from market_data_store.cli.loading import load_and_show
from market_data_store.cli.output import Output
from market_data_store.cli.terminal import console
from market_data_store.cli.up import running_processes, running_servers
from market_data_store.config import resource
from market_data_store.datasets import DATASETS
from market_data_store.errors import MarketDataStoreError
from market_data_store.files.options import Options
from market_data_store.local import processes
from market_data_store.postgres.connection import connect

#: One-minute bars of the CME Euro FX future, January 2024; see the README beside it.
FILE = resource("data") / "6EH4-1min-bars-2024-01.csv.gz"
DEFAULTS = {"provider": "CME", "symbol": "6EH4", "interval": "1m"}
#: Maximum number of differences to show.
_MAX_SHOWN = 20

_ROWS = """
    SELECT ts, open, high, low, close, volume FROM bars_ohlcv
    WHERE provider = %(provider)s AND symbol = %(symbol)s AND interval = %(interval)s
"""


@click.command("demo")
@click.option("--show-log", is_flag=True, help="Show the worker's log.")
@click.option("--keep-log", is_flag=True, hidden=True)
def command(show_log: bool, keep_log: bool) -> None:
    """Send a month of real CME bars through the store, and compare Postgres with the file.

    Starts the same servers and worker as `mds up`, and stops them at the end. If anything differs, prints the
    differences and exits with 1. A second run finds every row unchanged.
    """
    if keep_log:
        click.echo("--keep-log is deprecated and will be removed in version 0.6; use --show-log", err=True)
    output = Output(verbose=show_log or keep_log, quiet=True)
    with (
        running_servers() as servers,
        running_processes(servers, {"worker": processes.worker_command()}, output) as running,
    ):
        options = Options(dataset=DATASETS["bars"], constants=DEFAULTS, time_zone="UTC")
        summary = load_and_show([FILE], options, job_name="mds demo")
        with connect(running.database_url) as connection:
            found = list(differences(connection))
        console.print(f"compared      {'equal to the file' if not found else f'rows that differ: {len(found):,}'}")
        for difference in found[:_MAX_SHOWN]:
            console.print(f"  {difference}", markup=False)
        if found or summary.rejected or summary.stale:
            raise MarketDataStoreError("the rows in Postgres differ from the rows that were sent")


def differences(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """Describe each row that differs between the file and Postgres, or that only one of them has."""
    stored = {row[0]: row[1:] for row in connection.execute(_ROWS, DEFAULTS)}
    with gzip.open(FILE, "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            ts = datetime.fromisoformat(f"{row['timestamp_utc']}+00:00")
            values = tuple(float(row[name]) for name in ("open", "high", "low", "close", "volume"))
            held = stored.pop(ts, None)
            if held != values:
                yield f"{ts:%Y-%m-%d %H:%M}: the file has {values}, Postgres {held or 'nothing'}"
    for ts, values in stored.items():
        yield f"{ts:%Y-%m-%d %H:%M}: the file has nothing, Postgres {values}"
