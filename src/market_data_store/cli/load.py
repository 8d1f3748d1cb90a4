"""`mds load`: sends files' rows through the store."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from market_data_store import dead_letters
from market_data_store.cli.letters import Chosen
from market_data_store.cli.load_options import Request, load_options
from market_data_store.cli.replaying import replayed, show_outcome
from market_data_store.cli.terminal import console
from market_data_store.config import settings
from market_data_store.dead_letters import Where
from market_data_store.dead_letters.correcting import corrected, corrections
from market_data_store.errors import ConfigurationError, InvalidMessage
from market_data_store.files.finding import found_files
from market_data_store.files.layouts import known
from market_data_store.files.options import Undecided
from market_data_store.postgres.connection import connect

#: How long the outcome of corrected letters is awaited.
_LETTERS_TIMEOUT_S = 600.0


@click.command("load")
@click.argument("files", nargs=-1, metavar="FILE...")
@load_options
def command(files: tuple[str, ...], request: Request) -> None:
    """Send the rows of FILEs through the store.

    A FILE is delimited text, JSON (objects by the line, a list, or a list inside objects) or Parquet, plain or packed
    (gzip, zip, bzip2, xz, zstd). It is a path, a pattern such as '2024-*.csv', a directory (with --recursive), or - for
    standard input. Its layout is detected, and a vendor's recognised. A plan is printed before a row is sent. What
    cannot be known is asked for: exit code 2, one line that names the option, and nothing of any file is sent. Rows go
    by the lane of history, where they delay no live row; --lane live sends them as live ones.

    Rejected rows are grouped by reason, and kept in the table dead_letters with file and line. Loading a file again
    changes nothing. A load that was interrupted goes on where it was when the same command is given again. `mds jobs`
    lists the loads. The exit code is 1 if rows are rejected, or stale: then rows that count as sent later are stored,
    and these are not.

    \b
    mds load 6EH4.csv.gz --dataset bars --provider CME --interval 1m --symbol 6EH4
    mds load ticks.csv --dataset quotes --provider truefx --symbol USD/JPY --map ts=when
    mds load ADABTC-1m.zip --dataset bars --provider binance --symbol ADABTC --interval 1m --dry-run
    mds load history --recursive --dataset bars --provider CME --interval 1m
    zcat bars.ndjson.gz | mds load - --dataset bars --json
    mds load --letters letters.ndjson
    """
    if request.list_readers:
        _list_readers(request)
        return
    if request.letters is not None:
        _load_letters(request.letters, files, request)
        return
    if not files:
        raise click.UsageError("Missing argument 'FILE...'.")
    options = request.options
    if options is None:
        raise click.UsageError("Missing option '--dataset'.")
    try:
        with found_files(files, recursive=request.recursive) as found:
            for line in found.lines if not request.as_json else ():
                console.print(line, markup=False, soft_wrap=True)
            loading = _loading()
            if request.dry_run:
                loading.show_plans(found.files, options, lane=request.lane, as_json=request.as_json)
                return
            settings().require_broker_url()
            summary = loading.load_and_show(
                found.files,
                options,
                lane=request.lane,
                given=files,
                restart=request.restart,
                max_errors=request.max_errors,
                as_json=request.as_json,
            )
    except Undecided as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
    if summary.rejected or summary.stale or summary.is_cut:
        sys.exit(1)


def _list_readers(request: Request) -> None:
    layouts = known(request.layouts)
    width = max(map(len, layouts))
    for layout in layouts.values():
        click.echo(f"{layout.name:<{width}}  {layout.dataset:<7}  {layout.title}")


def _load_letters(file: str, files: tuple[str, ...], request: Request) -> None:
    """Send the letters of a file, and say what becomes of them."""
    if files or request.options is not None or request.dry_run:
        raise click.UsageError("--letters takes a file of `mds dead-letters export`, and no other file or --dataset")
    if request.lane != "backfill":
        raise click.UsageError("--letters are sent by --lane backfill")
    settings().require_broker_url()
    try:
        with click.open_file(file, "rb") as lines:
            given = dict(corrections(lines, file))
    except OSError as error:
        raise InvalidMessage(f"{file}: {error.strerror}") from error
    chosen = Chosen(list(given), None, Where())
    with connect(settings().require_database_url()) as connection:
        gone = len(given) - dead_letters.count(connection, **chosen.selection)
        outcome = replayed(connection, chosen, _LETTERS_TIMEOUT_S, lambda each: corrected(each, given[each.id]))
    if request.as_json:
        click.echo(json.dumps({**asdict(outcome), "no_letters": gone}))
    else:
        show_outcome(outcome, _LETTERS_TIMEOUT_S)
        if gone:
            console.print(f"{gone:,} were not sent: they are not letters any more")
    if not outcome.is_good:
        sys.exit(1)


def _loading() -> Any:
    try:
        from market_data_store.cli import loading  # DuckDB and Arrow: 0.3 s that a wrong option need not take
    except ModuleNotFoundError as error:
        if error.name != "duckdb":
            raise
        raise ConfigurationError(
            "files are read by DuckDB, which is not installed; install the extra `files`, or duckdb"
        ) from error
    return loading
