"""`mds status`: show the state of the store's parts once, or keep refreshing it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import click
from rich.live import Live
from rich.table import Table
from rich.text import Text

from market_data_store.app import app
from market_data_store.causes import help_of
from market_data_store.cli.terminal import console, moment, printable
from market_data_store.config import Settings, settings
from market_data_store.connections.urls import without_password
from market_data_store.coordinator.cluster import refuse_cluster
from market_data_store.coordinator.watermarks import LevelAndReason
from market_data_store.postgres.upkeep_runs import Run
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.document import document_of
from market_data_store.status.headline import Severity, problem_of
from market_data_store.status.health import is_ready
from market_data_store.status.looks import Away, FeedbackStatus, Looks, QueueStatus
from market_data_store.status.sampler import Sample, Sampler
from market_data_store.status.stored import Summary

_INTERVAL_S = 1.0
#: A command that has just begun to look does not know since when a cause of fewer seconds has been there.
_KNOWN_S = 3.0
_UNKNOWN = "unknown"
_COLORS: dict[Severity, str] = {"ok": "green", "warning": "yellow", "critical": "red"}


@click.command("status")
@click.option("--watch", is_flag=True, help="Keep refreshing until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON document of /status.json.")
def command(watch: bool, as_json: bool) -> None:
    """Show the state of the store, its database, queue, workers and feedback.

    A part that does not answer is shown as such. The exit code is 1 if rows cannot be accepted and written, if
    producers wait, or if no worker answers.

    \b
    mds status
    mds status --watch
    mds status --json
    """
    configured = settings()
    configured.require_database_url()
    configured.require_broker_url()
    refuse_cluster(app)
    sampler = Sampler(configured, log=False)
    try:
        if watch:
            _watch(sampler, configured, as_json=as_json)
        sample = sampler.newest(complete=True)
        _print(sample, configured, as_json=as_json)
    finally:
        sampler.close(timeout_s=0.2)  # a look that hangs ends with this process
    is_critical = sample.headline.severity == "critical" or not is_ready(sample.health)
    if is_critical or not _has_workers(sample.looks):
        sys.exit(1)


def _has_workers(looks: Looks) -> bool:
    return not isinstance(looks.workers, Away) and bool(looks.workers)


def _print(sample: Sample, settings: Settings, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document_of(sample, settings), indent=2))
        return
    for name, value in _fields(sample, settings).items():
        click.secho(f"{name:<14}{value}", fg=_COLORS[sample.headline.severity] if name == "status" else None)


def _watch(sampler: Sampler, settings: Settings, *, as_json: bool) -> None:
    """Show the status until interrupted: as a live table in a terminal, otherwise as one line each second."""
    if as_json or not console.is_terminal:
        while True:
            sample = sampler.newest(complete=True)
            click.echo(json.dumps(document_of(sample, settings)) if as_json else _line(sample, settings))
            time.sleep(_INTERVAL_S)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_table(sampler.newest(complete=True), settings), refresh=True)
            time.sleep(_INTERVAL_S)


def _line(sample: Sample, settings: Settings) -> str:
    return ", ".join(f"{name} {value}" for name, value in _fields(sample, settings).items())


def _table(sample: Sample, settings: Settings) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _fields(sample, settings).items():
        style = _COLORS[sample.headline.severity] if name == "status" else ""
        table.add_row(name, Text(value, style=style))
    return table


def _fields(sample: Sample, settings: Settings) -> dict[str, str]:
    """Return the values to show, by name, with control characters escaped for the terminal."""
    looks = sample.looks
    fields = {
        "status": str(sample.headline),
        **_cause(sample),
        "database": f"{without_password(settings.database_url)} {_reached(looks.database)}",
        **_database(looks.database),
        "broker": f"{without_password(settings.broker_url)} {_reached(looks.queue)}",
        "queue": _queue(looks.queue, settings.queue_capacity),
        "held": "; ".join(map(str, looks.trouble.held)) or "no dataset",
        "level": str(sample.level),
        "workers": "; ".join([_workers(looks.workers), *looks.trouble.workers]),
        "backfill": _backfill(looks.of_backfill, sample.backfill, settings.backfill_capacity),
        "feedback": _feedback(looks.feedback, sample.ts),
    }
    return {name: printable(value) for name, value in fields.items()}


def _cause(sample: Sample) -> dict[str, str]:
    """Return since when the headline's cause has been there, if that is known, and what to read about it."""
    code = sample.headline.code
    if code is None:
        return {}
    lasts = sample.since is not None and sample.ts - sample.since >= _KNOWN_S
    since = {"since": moment(datetime.fromtimestamp(sample.since or 0.0, UTC))} if lasts else {}
    return {**since, "help": help_of(code)}


def _reached(look: DatabaseStatus | QueueStatus | Away) -> str:
    # The driver's words: whoever runs the command may read hosts and users.
    if isinstance(look, Away):
        return look.reason or look.error
    refusal = f", takes no write: {look.refusal}" if isinstance(look, QueueStatus) and look.refusal else ""
    return f"answers in {look.latency_ms:.1f} ms{refusal}"


def _database(look: DatabaseStatus | Away) -> dict[str, str]:
    if isinstance(look, Away):
        return dict.fromkeys(("schema", "stored", "rows/s", "dead letters", "retention"), _UNKNOWN)
    return {
        "schema": f"revision {look.revisions.current or 'none'}, {look.revisions.state}",
        "stored": _stored(look.stored),
        "rows/s": _UNKNOWN if look.rows_per_s is None else f"{look.rows_per_s:,.0f}",
        "dead letters": _letters(look),
        "retention": _retention(look.retention),
    }


def _letters(look: DatabaseStatus) -> str:
    if look.dead_letters is None:
        return _UNKNOWN
    return f"{look.dead_letters:,}" + (f", the oldest of {moment(look.oldest_letter)}" if look.oldest_letter else "")


def _retention(run: Run | None) -> str:
    if run is None or run.ended_at is None:
        return "no run yet; is `mds monitor` running, with DATABASE_URL?"
    return f"{moment(run.ended_at)}: {run.said}"


def _stored(stored: Mapping[str, Summary]) -> str:
    """Return series and newest row of each dataset that has rows; `mds series` has the rest."""
    parts = [
        f"{name} {_UNKNOWN}"
        if found.series is None
        else f"{name} {found.series:,} series, newest {moment(found.newest) if found.newest else _UNKNOWN}"
        for name, found in stored.items()
        if found.series != 0
    ]
    return "; ".join(parts) or "nothing"


def _queue(look: QueueStatus | Away, capacity: int) -> str:
    if isinstance(look, Away):
        return _UNKNOWN
    held = _UNKNOWN if look.reserved is None else f"{look.reserved:,}"
    malformed = f", set aside because it is not a message: {look.malformed:,}" if look.malformed else ""
    return f"{look.depth:,} waiting ({look.depth / capacity:.0%} of {capacity:,}), held by workers: {held}{malformed}"


def _backfill(looks: Looks, level: LevelAndReason, capacity: int) -> str:
    """Return the backfill lane in one line, as `queue`, `level` and `workers` are those of live rows."""
    workers = _UNKNOWN if isinstance(looks.workers, Away) else f"{len(looks.workers)}"
    shown = f"{_queue(looks.queue, capacity)}; level {level}; workers {workers}"
    problem = problem_of(level)
    return f"{shown}; {problem}" if problem else shown


def _workers(look: list[str] | Away) -> str:
    if isinstance(look, Away):
        return _UNKNOWN
    return f"{len(look)} ({', '.join(look)})" if look else "0"


def _feedback(look: FeedbackStatus | Away | None, now: float) -> str:
    if look is None:
        return "no stream; set REDIS_URL to publish to one"
    if isinstance(look, Away):
        return look.reason or look.error
    if not look.events:
        return "no event yet; is `mds monitor` running?"
    newest = look.events[0]
    outcomes = "".join(f", {receiver}: {outcome}" for receiver, outcome in sorted(look.outcomes.items()))
    return f"{LevelAndReason(newest.level, newest.reason)} {max(0.0, now - newest.ts):.0f} s ago{outcomes}"
