"""`mds dead-letters`: list, count, correct, replay and delete rows and messages that could not be written."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click
import psycopg
from rich.table import Table
from rich.text import Text

from market_data_store import dead_letters
from market_data_store.cli import editing
from market_data_store.cli.ending import Ended
from market_data_store.cli.letters import Chosen, filtered, selected
from market_data_store.cli.replaying import replayed, show_outcome
from market_data_store.cli.terminal import confirm_deletion, console, moment, printable
from market_data_store.config import settings
from market_data_store.dead_letters import Letter
from market_data_store.dead_letters.correcting import exported, with_values
from market_data_store.dead_letters.summary import GROUPS, NOT_CLASSIFIED, ReasonCount, grouped, summary
from market_data_store.errors import InvalidMessage
from market_data_store.postgres.connection import connect

#: How many letters `list` reads at a time.
_LISTED_AT_ONCE = 1_000
#: Fields that a listing leaves out, because they hold what was sent.
_SENT = ("row", "defaults", "body")


@click.group("dead-letters")
def command() -> None:
    """Rows and messages that could not be written.

    \b
    mds dead-letters list --by-reason
    mds dead-letters list --dataset bars --since 2026-11-26
    mds dead-letters show 17
    mds dead-letters replay --dataset bars
    mds dead-letters replay --job 7 --reason "provider: missing" --set provider=CME
    mds dead-letters edit 17
    mds dead-letters export letters.ndjson --job 7
    mds dead-letters purge --id 17 --id 18
    """


command.add_command(editing.command)


@command.command("list")
@filtered
@click.option("--by-reason", is_flag=True, help="Count letters by reason instead of listing them.")
@click.option("--by", type=click.Choice(["reason", *GROUPS]), help="Count letters by reason, job and file, ...")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Maximum number of lines.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="ID", help="Start after this id.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_(chosen: Chosen, by_reason: bool, by: str | None, limit: int, after: int, as_json: bool) -> None:
    """List letters by id, with their reasons, and the file and line of rows that were loaded. Only `show` and `export`
    print what was sent.

    \b
    mds dead-letters list
    mds dead-letters list --by-reason
    mds dead-letters list --by job --since 2026-11-26
    mds dead-letters list --job 7 --reason "not a number"
    mds dead-letters list --dataset bars --after 100 --json
    """
    by = "reason" if by_reason else by
    if by is not None and after:
        raise click.UsageError("--after cannot be combined with --by and --by-reason; use --limit")
    dataset, where = chosen.dataset, chosen.where
    with _connection() as connection:
        if by == "reason":
            _show_reasons(summary(connection, dataset=dataset, where=where, limit=limit), as_json)
        elif by is not None:
            _show_groups(by, grouped(connection, by, dataset=dataset, where=where, limit=limit), as_json)
        else:
            _show_letters(_pages(connection, chosen, after, limit + 1), limit, as_json)


def _pages(connection: psycopg.Connection[Any], chosen: Chosen, after: int, limit: int) -> Iterator[Sequence[Letter]]:
    """Yield at most `limit` letters, some at a time; the first may be empty."""
    while True:
        most = min(limit, _LISTED_AT_ONCE)
        letters = dead_letters.page(connection, dataset=chosen.dataset, where=chosen.where, after=after, limit=most)
        yield letters
        limit -= len(letters)
        if len(letters) < _LISTED_AT_ONCE or not limit:
            return
        after = letters[-1].id


def _show_letters(pages: Iterable[Sequence[Letter]], limit: int, as_json: bool) -> None:
    """Print at most `limit` letters of these pages, and say if there are more."""
    if as_json:
        listed = [asdict(letter) for letters in pages for letter in letters][:limit]
        _show_json([{name: value for name, value in each.items() if name not in _SENT} for each in listed])
        return
    # Not a table of rich's: to lay out 100,000 letters would take minutes.
    line = "{:>8}  {:<20}  {:<12}  {:<8}  {}"
    last, left = 0, limit
    for letters in pages:
        if left == limit:
            click.echo(line.format("id", "time", "dataset", "sqlstate", "reason") if letters else "no dead letters")
        for letter in letters[:left]:
            dataset, sqlstate = letter.dataset or "", letter.sqlstate or ""
            reason = printable(f"{_place(letter)}{letter.reason}")
            click.echo(line.format(letter.id, moment(letter.refused_at), dataset, sqlstate, reason))
            last = letter.id
        if len(letters) > left:
            click.echo(f"for more letters, add --after {last}")
        left -= len(letters)


def _place(letter: Letter) -> str:
    if letter.file is None:
        return ""
    return f"{letter.file}: " if letter.line is None else f"{letter.file}:{letter.line}: "


def _show_groups(by: str, groups: Sequence[tuple[Any, ...]], as_json: bool) -> None:
    names = ["job", "file"] if by == "job" else [by]
    if as_json:
        _show_json([dict(zip(("count", "newest", *names), group, strict=True)) for group in groups])
        return
    table = _table("count", "newest", *names)
    for count, newest, *shared in groups:
        table.add_row(f"{count:,}", moment(newest), *(Text(printable("-" if v is None else str(v))) for v in shared))
    console.print(table if groups else "no dead letters")


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
@selected
@click.option("--set", "values", multiple=True, metavar="FIELD=VALUE", help="Give FIELD this value; none removes it.")
@click.option(
    "--timeout", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds to wait; 0 does not wait."
)
def replay(chosen: Chosen, values: tuple[str, ...], timeout: float) -> None:
    """Send letters again and wait until each is written or refused again.

    A letter stays in the table until its row is written, or a row that counts as sent later is stored with its key. The
    exit code is 1 if some are left. With --set rows are corrected on their way; a letter that is refused again keeps
    the row as it was.

    \b
    mds dead-letters replay --id 17
    mds dead-letters replay --dataset bars --timeout 600
    mds dead-letters replay --job 7 --reason "vwap" --set vwap=
    """
    given = _values(values)
    settings().require_broker_url()
    with _connection() as connection:
        outcome = replayed(connection, chosen, timeout, (lambda each: with_values(each, given)) if given else None)
    show_outcome(outcome, timeout)
    if not outcome.is_good:
        sys.exit(1)


def _values(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not (name and separator):
            raise click.UsageError(f"--set {text}: write FIELD=VALUE, such as --set provider=CME")
        found[name] = value
    return found


@command.command("export")
@click.argument("file", type=click.Path(dir_okay=False, writable=True, allow_dash=True))
@selected
def export_(file: str, chosen: Chosen) -> None:
    """Write letters to FILE (- for standard output), as JSON, one a line.

    Correct `row` in each line, delete the lines that are to stay letters, and give the file to `mds load --letters`:
    the letters whose rows are then written are gone.

    \b
    mds dead-letters export letters.ndjson --job 7
    mds load --letters letters.ndjson
    """
    written = left = 0
    with _connection() as connection, click.open_file(file, "wb", atomic=file != "-") as sink:
        for letter in dead_letters.stream(connection, **chosen.selection):
            line = exported(letter)
            written += line is not None
            left += line is None
            if line is not None:
                sink.write(line + b"\n")
    said = f"{written:,} letters written"
    if left:
        said += f"; {left:,} others hold a whole message, or no row, and are left out"
    click.echo(said, err=file == "-")


@command.command()
@selected
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def purge(chosen: Chosen, yes: bool) -> None:
    """Delete letters for good. Without a terminal this needs --yes.

    \b
    mds dead-letters purge --id 17
    mds dead-letters purge --all --yes
    """
    with _connection() as connection:
        if not yes:
            number = dead_letters.count(connection, **chosen.selection)
            confirm_deletion(f"{number:,} dead letter{'' if number == 1 else 's'} for good", yes=not number)
        try:
            number = dead_letters.purge(connection, **chosen.selection)
        except Ended as end:
            end.facts = "no letter was deleted"
            raise
    console.print(f"{number:,} deleted")


def _connection() -> psycopg.Connection[tuple[Any, ...]]:
    return connect(settings().require_database_url())


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
