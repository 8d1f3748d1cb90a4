"""The store's status in a table that is looked at while it changes (`mds status --watch`)."""

from __future__ import annotations

import time
from contextlib import ExitStack

from rich.console import Console
from rich.live import Live
from rich.table import Table

from market_data_store.config import Settings
from market_data_store.status.reader import Status, StatusReader

_INTERVAL_S = 1.0


def watch(settings: Settings, console: Console) -> None:
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
