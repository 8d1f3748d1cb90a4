"""`mds jobs`: lists job runs, and finds those that stopped without recording their end."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from market_data_store.cli.terminal import console, moment, printable
from market_data_store.job_tracking import STATUSES, JobRunTracker

#: Minimum width of the table, in characters: a narrower one would have columns of single letters. A narrower terminal
#: wraps its lines.
_MIN_WIDTH = 120
#: The width without a terminal, where each run is one line.
_PLAIN_WIDTH = 10_000


@click.command("jobs")
@click.option("--job", metavar="NAME", help="Only runs of this job.")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs with this status.")
@click.option("--stuck", is_flag=True, help="Only runs that have not ended and no longer report progress.")
@click.option(
    "--minutes", type=click.IntRange(0), default=15, show_default=True, help="With --stuck: minutes of silence."
)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Maximum number of runs to list.")
def command(job: str | None, status: str | None, stuck: bool, minutes: int, limit: int) -> None:
    """List job runs, newest first: those of `mds load`, and those that other programs record in job_runs.

    A run that was killed keeps the status running; --stuck finds it.

    \b
    mds jobs
    mds jobs --job "mds load" --status failure
    mds jobs --stuck --minutes 60
    """
    if stuck and status is not None:
        raise click.UsageError("--stuck and --status cannot be combined: a stuck run has the status running")
    tracker = JobRunTracker()
    if stuck:
        runs = tracker.get_stuck_runs(minutes, limit=limit, job_name=job)
    else:
        runs = tracker.get_recent_runs(limit, job, status=status)
    if not runs:
        console.print("no runs are stuck" if stuck else "no runs")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("id", "job", "data", "status", "started", "last heard" if stuck else "seconds"):
        table.add_column(name, no_wrap=name not in ("job", "data"), justify=_justified(name), overflow="fold")
    for name in ("processed", "written", "failed"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("error", overflow="fold")
    for run in runs:
        table.add_row(*map(Text, _cells(run, stuck)))
    console.width = max(console.width, _MIN_WIDTH) if console.is_terminal else _PLAIN_WIDTH
    console.print(table)


def _justified(name: str) -> Any:
    return "right" if name in ("id", "seconds") else "left"


def _cells(run: dict[str, Any], stuck: bool) -> list[str]:
    elapsed = "" if run["elapsed_ms"] is None else f"{run['elapsed_ms'] / 1_000:,.1f}"
    # Other programs may keep anything in their metadata.
    processed = run["metadata"].get("rows_processed") if isinstance(run["metadata"], dict) else None
    return [
        str(run["id"]),
        printable(run["job_name"]),
        printable(" ".join(filter(None, (run["dataset_name"], run["provider"])))),
        printable(run["status"]),
        moment(run["started_at"]),
        moment(run["updated_at"]) if stuck else elapsed,
        f"{processed:,}" if isinstance(processed, int) else "",
        f"{run['rows_written']:,}",
        f"{run['rows_failed']:,}",
        printable(run["error_message"] or ""),
    ]
