"""`mds dead-letters`: list, count, replay and delete rows and messages that could not be written."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click
import psycopg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from market_data_store import dead_letters
from market_data_store.app import app
from market_data_store.cli.terminal import console, moment, printable
from market_data_store.config import settings
from market_data_store.datasets import DATASETS
from market_data_store.dead_letters import Letter
from market_data_store.dead_letters.replay import messages
from market_data_store.dead_letters.summary import NOT_CLASSIFIED, ReasonCount, summary
from market_data_store.errors import InvalidMessage
from market_data_store.postgres.connection import connect

_POLL_INTERVAL_S = 0.2
#: Fields that a listing leaves out, because they hold what was sent.
_SENT = ("row", "defaults", "body")

_of_dataset = click.option("--dataset", type=click.Choice(list(DATASETS)), help="Only letters of rows of this dataset.")


def _selected(decorated: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select letters."""
    for option in (
        click.option("--all", "every", is_flag=True, help="All letters."),
        _of_dataset,
        click.option("--id", "ids", type=click.IntRange(1), multiple=True, help="This letter; may be repeated."),
    ):
        decorated = option(decorated)
    return decorated


@click.group("dead-letters")
def command() -> None:
    """Rows and messages that could not be written.

    \b
    mds dead-letters list --by-reason
    mds dead-letters list --dataset bars
    mds dead-letters show 17
    mds dead-letters replay --dataset bars
    mds dead-letters purge --id 17 --id 18
    """


@command.command("list")
@_of_dataset
@click.option("--by-reason", is_flag=True, help="Count letters by reason instead of listing them.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Maximum number of lines.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="ID", help="Start after this id.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_(dataset: str | None, by_reason: bool, limit: int, after: int, as_json: bool) -> None:
    """List letters by id, with their reasons. Only `show` prints what was sent.

    \b
    mds dead-letters list
    mds dead-letters list --by-reason
    mds dead-letters list --dataset bars --after 100 --json
    """
    if by_reason and after:
        raise click.UsageError("--after cannot be combined with --by-reason; use --limit")
    with _connection() as connection:
        if by_reason:
            _show_reasons(summary(connection, dataset=dataset, limit=limit), as_json)
        else:
            letters = dead_letters.page(connection, dataset=dataset, after=after, limit=limit + 1)
            _show_letters(letters[:limit], as_json, more=len(letters) > limit)


def _show_letters(letters: Sequence[Letter], as_json: bool, *, more: bool) -> None:
    if as_json:
        listed = [asdict(letter) for letter in letters]
        _show_json([{name: value for name, value in each.items() if name not in _SENT} for each in listed])
        return
    table = _table("id", "time", "dataset", "sqlstate", "reason")
    for letter in letters:
        dataset, sqlstate = letter.dataset or "", letter.sqlstate or ""
        table.add_row(str(letter.id), moment(letter.refused_at), dataset, sqlstate, Text(printable(letter.reason)))
    console.print(table if letters else "no dead letters")
    if more:
        console.print(f"for more letters, add --after {letters[-1].id}")


def _show_reasons(reasons: Sequence[ReasonCount], as_json: bool) -> None:
    counted = [(each, datetime.fromtimestamp(each.last_ts, UTC)) for each in reasons]
    if as_json:
        names = ("count", "dataset", "pattern", "newest")
        _show_json([dict(zip(names, (r.count, r.dataset, r.pattern, newest), strict=True)) for r, newest in counted])
        return
    table = _table("count", "dataset", "newest", "pattern")
    for each, newest in counted:
        dataset = "whole message" if each.dataset is None else each.dataset
        table.add_row(f"{each.count:,}", dataset, moment(newest), Text(printable(each.reason)))
    console.print(table if reasons else "no dead letters")


def _table(first: str, *names: str) -> Table:
    """Make a table whose first column is a number and whose last is a text of any length."""
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True, justify="right")
    for name in names[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(names[-1], overflow="fold")
    return table


def _show_json(items: list[dict[str, Any]]) -> None:
    # ASCII only, so that no control character of a letter's text reaches the terminal.
    click.echo(json.dumps(items, indent=2, default=datetime.isoformat))


@command.command()
@click.argument("id", type=click.IntRange(1))
def show(id: int) -> None:  # click requires the argument's name
    """Show everything about a letter, including the row or the message as it was sent.

    \b
    mds dead-letters show 17
    """
    with _connection() as connection:
        letter = dead_letters.get(connection, id)
    if letter is None:
        raise InvalidMessage(f"id: {id} is not a dead letter; see `mds dead-letters list`")
    for name, value in _fields(letter):
        console.print(f"{name:<18}{printable(value)}", markup=False, soft_wrap=True)


@command.command()
@_selected
@click.option(
    "--timeout", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds to wait; 0 does not wait."
)
def replay(ids: tuple[int, ...], dataset: str | None, every: bool, timeout: float) -> None:
    """Send letters again and wait until each is written or refused again.

    A letter stays in the table until it is written. The exit code is 1 if some are left.

    \b
    mds dead-letters replay --id 17
    mds dead-letters replay --dataset bars --timeout 600
    """
    chosen = _chosen(ids, dataset, every)
    settings().require_broker_url()
    with _connection() as connection, _progress() as progress:
        since = _now(connection)
        bar = progress.add_task("sent", total=dead_letters.count(connection, ids=chosen, dataset=dataset))
        sent: list[int] = []
        whole: list[str] = []
        for message in messages(app, connection, ids=chosen, dataset=dataset):
            sent += message.ids
            whole += [message.task_id] if message.whole else []
            progress.update(bar, completed=len(sent), total=max(len(sent), 1))
        bar = progress.add_task("settled", total=max(len(sent), 1))
        deadline = time.monotonic() + timeout
        while True:
            waiting, refused = dead_letters.outcome(connection, sent, since)
            progress.update(bar, completed=len(sent) - waiting)
            if not waiting or time.monotonic() >= deadline:
                break
            time.sleep(_POLL_INTERVAL_S)
        new = len(dead_letters.reasons(connection, whole))
    console.print(f"{len(sent):,} sent: {len(sent) - waiting - refused:,} gone, {refused:,} refused again")
    if new:
        console.print(f"{new:,} new letters for refused rows of {len(whole):,} whole messages")
    if waiting:
        console.print(f"{waiting:,} still pending after {timeout:g} s; they stay in the queue. Is a worker running?")
    if waiting or refused or new:
        sys.exit(1)


@command.command()
@_selected
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def purge(ids: tuple[int, ...], dataset: str | None, every: bool, yes: bool) -> None:
    """Delete letters for good.

    \b
    mds dead-letters purge --id 17
    mds dead-letters purge --all --yes
    """
    chosen = _chosen(ids, dataset, every)
    with _connection() as connection:
        if sys.stdin.isatty() and not yes:
            number = dead_letters.count(connection, ids=chosen, dataset=dataset)
            click.confirm(f"This deletes {number:,} dead letters for good. Continue?", abort=True)
        number = dead_letters.purge(connection, ids=chosen, dataset=dataset)
    console.print(f"{number:,} deleted")


def _chosen(ids: Sequence[int], dataset: str | None, every: bool) -> list[int] | None:
    if (bool(ids) + (dataset is not None) + every) != 1:
        raise click.UsageError("select letters by exactly one of --id 17, --dataset bars and --all")
    return list(ids) or None


def _connection() -> psycopg.Connection[tuple[Any, ...]]:
    return connect(settings().require_database_url())


def _now(connection: psycopg.Connection[Any]) -> datetime:
    """Return the time of the database's clock, which also sets `refused_at`."""
    ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
    assert isinstance(now, datetime)  # noqa: S101
    return now


def _progress() -> Progress:
    columns = (TextColumn("{task.description:<8}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _fields(letter: Letter) -> list[tuple[str, str]]:
    fields = {
        "id": str(letter.id),
        "kept": moment(letter.created_at),
        "refused": moment(letter.refused_at),
        "enqueued": moment(letter.enqueued_at),
        "task": letter.task_id,
        "position": str(letter.position),
        "dataset": letter.dataset,
        "reason": letter.reason,
        "pattern": NOT_CLASSIFIED if letter.pattern is None else letter.pattern,
        "sqlstate": letter.sqlstate,
        "job": letter.job,
        "file": letter.file,
        "line": letter.line,
        "row": letter.row,
        "defaults": letter.defaults,
        "content type": letter.content_type,
        "content encoding": letter.content_encoding,
        "compression": letter.compression,
        "body bytes": None if letter.body_bytes is None else f"{letter.body_bytes:,}",
        "body sha256": letter.body_sha256,
        "body": None if letter.body is None else letter.body.decode("utf-8", "backslashreplace"),
    }
    return [(name, str(value)) for name, value in fields.items() if value is not None]
