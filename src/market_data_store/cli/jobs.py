"""`mds jobs`: the runs of jobs, and those that ended without saying so."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from market_data_store.cli.terminal import console, moment, printable
from market_data_store.job_tracking import STATUSES, JobRunTracker

#: Characters. A narrower terminal breaks the lines itself: a table of that width has columns of single letters.
_MIN_WIDTH = 120
#: Without a terminal a run is a line.
_PLAIN_WIDTH = 10_000


@click.command("jobs")
@click.option("--job", metavar="NAME", help="Runs of this job.")
@click.option("--status", type=click.Choice(STATUSES), help="Runs that are or ended so.")
@click.option("--stuck", is_flag=True, help="Runs that have not ended, and of which nothing is heard.")
@click.option("--minutes", type=click.IntRange(0), default=15, show_default=True, help="With --stuck: for so long.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
def command(job: str | None, status: str | None, stuck: bool, minutes: int, limit: int) -> None:
    """List runs of jobs, the newest first: those of `mds load`, and of others that record theirs in job_runs.

    A run that was killed stays `running`; --stuck finds it.

    \b
    mds jobs
    mds jobs --job "mds load" --status failure
    mds jobs --stuck --minutes 60
    """
    if stuck and status is not None:
        raise click.UsageError("--stuck and --status exclude each other: a run that is stuck is running")
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
    # Of the metadata of others nothing is certain.
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
