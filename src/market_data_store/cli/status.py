"""`mds status`: what the store's parts say, once or in a table that changes."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from market_data_store import dead_letters
from market_data_store.app import app
from market_data_store.cli.terminal import console
from market_data_store.config import Settings, settings, without_password
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.postgres import schema
from market_data_store.postgres.connection import connect
from market_data_store.protocol import QUEUE
from market_data_store.status.reader import Status, StatusReader

_INTERVAL_S = 1.0


@click.command("status")
@click.option("--watch", is_flag=True, help="Keep refreshing until Ctrl-C.")
def command(watch: bool) -> None:
    """Show the schema's revision, how deep the queue is and which workers answer."""
    database_url, _ = settings().require_database_url(), settings().require_broker_url()
    if watch:
        _watch(settings(), console)
    table = Table(show_header=False, box=None, pad_edge=False)
    found = schema.revisions(database_url)
    table.add_row("database", without_password(database_url), found.state)
    if found.current is not None:
        with connect(database_url) as connection:
            table.add_row("dead letters", f"{dead_letters.count(connection):,}", "")
    with closing(QueueInspector(app, QUEUE)) as inspector:
        depth, workers = inspector.depth(), inspector.workers()
    table.add_row("broker", without_password(settings().broker_url), "")
    table.add_row("queue", f"{depth:,} waiting", f"{depth / settings().queue_capacity:.0%} of capacity")
    table.add_row("workers", str(len(workers)), ", ".join(workers))
    console.print(table)
    if not workers or not found.up_to_date:
        sys.exit(1)


def _watch(settings: Settings, console: Console) -> None:
    """Show the status until interrupted: a live table in a terminal, a line a look elsewhere."""
    with ExitStack() as stack:
        reader = StatusReader(settings, stack)
        live = stack.enter_context(Live(console=console, auto_refresh=False)) if console.is_terminal else None
        while True:
            started = time.monotonic()
            shown = _shown(reader.read(), settings.queue_capacity)
            if live is None:
                console.print(", ".join(f"{name} {value}" for name, value in shown.items()), soft_wrap=True)
            else:
                live.update(_table(shown), refresh=True)
            time.sleep(max(0.0, _INTERVAL_S - (time.monotonic() - started)))


def _shown(status: Status, capacity: int) -> dict[str, str]:
    queue, database = status.queue, status.database
    rows_per_s = "unknown" if database is None or database.rows_per_s is None else f"{database.rows_per_s:,.0f}"
    last = status.events[0] if status.events else None
    told = "none" if last is None else f"{last.level.value} {time.time() - last.ts:.0f} s ago"
    return {
        "depth": "broker unreachable" if queue is None else f"{queue.depth:,}",
        "level": status.level.value,
        "utilization": "unknown" if queue is None else f"{queue.depth / capacity:.0%}",
        "rows/s": "database unreachable" if database is None else rows_per_s,
        "workers": "unknown" if status.workers is None else str(len(status.workers)),
        "last event": f"{told} ({last.reason})" if last is not None and last.reason else told,
    }


def _table(shown: dict[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    styles = {"ok": "green", "soft": "yellow", "hard": "red"}
    for name, value in shown.items():
        table.add_row(name, value, style=styles.get(value.split()[0], "") if name in ("level", "last event") else "")
    return table
