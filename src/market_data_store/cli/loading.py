"""What `mds load` does with its files: plans all of them, sends them one after the other, and says what became of each.

Imports DuckDB and Arrow, which take 0.3 s.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import psycopg

from market_data_store.cli.ending import Ended
from market_data_store.cli.load_outcome import done, outcome, show_many, show_one, total_of
from market_data_store.cli.recording import recorded
from market_data_store.cli.terminal import console, moment, progress
from market_data_store.config import settings
from market_data_store.errors import BrokerUnavailable, InvalidMessage, MarketDataStoreError
from market_data_store.files.loading import Progress, Session, Summary, load_file, session
from market_data_store.files.options import Options, Undecided
from market_data_store.files.plan import make_plan
from market_data_store.files.planned import Plan
from market_data_store.files.positions import (
    Interrupted,
    Position,
    content_of,
    continued,
    interrupted,
    load_fingerprint,
)
from market_data_store.files.report import plan_facts, plan_lines, preview, shown_row
from market_data_store.postgres.added_columns import as_stored
from market_data_store.postgres.connection import connect
from market_data_store.producer import served
from market_data_store.producer.lanes import Lane

#: Plans of so many files are kept until they are sent; those of others are made again.
_KEPT_PLANS = 50
#: The most plans, and errors, that are shown.
_MOST_SHOWN = 20


@dataclass(slots=True)
class _Files:
    """The files of one load, what is known of them, and where it goes on."""

    paths: Sequence[Path]
    options: Options
    contents: list[str] = field(default_factory=list)
    start: Position = field(default_factory=Position)
    plans: dict[int, Plan] = field(default_factory=dict)
    rows: int = 0
    bad_rows: int = 0

    @property
    def due(self) -> range:
        """The places of the files that are not done."""
        return range(self.start.done, len(self.paths))

    def plan(self, at: int) -> Plan:
        """Return the plan of a file."""
        return self.plans.pop(at, None) or make_plan(self.paths[at], self.options)


def show_plans(paths: Sequence[Path], options: Options, *, lane: Lane, as_json: bool) -> None:
    """Print the plan and the first rows of each file."""
    facts = []
    for path in paths:
        plan = make_plan(path, options)
        rows = preview(plan)
        facts.append({**plan_facts(plan), "lane": lane, "first_rows": rows})
        if not as_json:
            _print(plan_lines(plan))
            _print([f"row           {shown_row(row)}" for row in rows])
    if as_json:
        click.echo(json.dumps(facts[0] if len(facts) == 1 else {"files": facts}, default=str))
    else:
        _print([_lane_line(lane), "nothing was sent (--dry-run)"])


def load_and_show(
    paths: Sequence[Path],
    options: Options,
    *,
    lane: Lane = "backfill",
    job_name: str = "mds load",
    given: Sequence[str] | None = None,
    restart: bool = False,
    max_errors: int | None = None,
    as_json: bool = False,
) -> Summary:
    """Load files and record it as one job run; print plans, progress, rejects by reason, and a summary.

    With `given`, the paths as they were given, the load goes on where an earlier one was interrupted, unless `restart`.
    """
    options = _as_stored(options)
    files = _Files(paths, options)
    fingerprint = None if given is None else load_fingerprint(options, given)
    if fingerprint is not None:
        files.contents = [content_of(path) for path in paths]
        earlier = None if restart else _interrupted(fingerprint, options)
        if earlier is not None:
            files.start = continued(earlier.position, files.contents)
            if not (files.start.is_at_start or as_json):
                _print([_goes_on(files, earlier)])
    _plan_all(files, quiet=as_json)
    if not as_json:
        _print([_lane_line(lane)])
    if max_errors is not None and files.bad_rows > max_errors:
        which = str(paths[0]) if len(paths) == 1 else f"{len(paths):,} files"
        raise InvalidMessage(
            f"{which}: {files.bad_rows:,} of {files.rows:,} rows would be rejected, and --max-errors is "
            f"{max_errors:,}; nothing was sent"
        )
    about: dict[str, Any] = {"file": paths[0].name, "position": files.start.noted()}
    if len(paths) > 1:
        about["files"] = len(paths)
    if files.start.is_at_start:
        about["rows_total"] = files.rows
    run = recorded(job_name, options.dataset.name, options.constants.get("provider"), about, fingerprint=fingerprint)
    return _Loading(files, lane, max_errors, as_json).run(run)


class _Loading:
    def __init__(self, files: _Files, lane: Lane, max_errors: int | None, as_json: bool) -> None:
        self._files, self._lane, self._max_errors, self._as_json = files, lane, max_errors, as_json
        self._is_one = len(files.paths) == 1
        #: Of each file that is loaded, in their order.
        self._summaries: list[Summary] = []
        self._facts: list[dict[str, Any]] = []

    def run(self, recording: Any) -> Summary:
        with self._said(), _warnings_shown(), progress() as show, session(recording, self._lane) as servers:
            position = self._files.start
            for at in self._files.due:
                plan = self._files.plan(at)
                self._summaries.append(Summary())
                content = self._files.contents[at] if self._files.contents else str(at)
                here = position if position.file == content else position.within(content)
                summary = self._load(plan, servers, here, show)
                self._summaries[-1] = summary
                self._facts.append({**plan_facts(plan), "lane": self._lane, **outcome(summary)})
                if not self._as_json:
                    (show_one if self._is_one else show_many)(summary, plan.path, plan.source.unit)
                if summary.is_cut:
                    break
                position = position.after(content)
                servers.note(position)
            else:
                servers.note(None)
        total = total_of(self._summaries)
        if self._as_json:
            facts = (
                self._facts[0]
                if self._is_one and self._facts
                else {"files": self._facts, "lane": self._lane, **outcome(total)}
            )
            click.echo(json.dumps(facts, default=str))
        elif not self._is_one:
            show_one(total, None, "row", of=len(self._summaries))
        return total

    def _load(self, plan: Plan, servers: Session, position: Position, show: Any) -> Summary:
        def on_progress(now: Progress) -> None:
            self._summaries[-1] = now.summary
            if not self._as_json:
                all_of_it = total_of(self._summaries)
                show(
                    all_of_it.settled,
                    max(self._files.rows, all_of_it.settled),
                    f"sent {all_of_it.sent:,}",
                    f"stored {all_of_it.stored:,}",
                    f"{all_of_it.rate:,.0f} rows/s",
                    f"depth {now.depth:,}",
                )

        return load_file(plan, servers, on_progress=on_progress, max_errors=self._max_errors, position=position)

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Let the last line of a load that does not get to its end say what was stored."""
        try:
            yield
        except Ended as end:
            end.facts = done(total_of(self._summaries))
            raise
        except BrokerUnavailable as error:  # without what the client says of its rows: they are in the file
            cause = error.__cause__ if isinstance(error.__cause__, BrokerUnavailable) else error
            raise BrokerUnavailable(f"{cause}; {done(total_of(self._summaries))}") from error


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Print that no worker takes the lane: the package's log goes nowhere by itself."""
    handler, logger = logging.StreamHandler(), logging.getLogger(served.__name__)
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _plan_all(files: _Files, *, quiet: bool) -> None:
    """Make all plans before a row is sent; raises the error of the only file that has one, or one for all of them."""
    errors: list[MarketDataStoreError] = []
    alike: dict[tuple[str, ...], list[str]] = {}
    for at in files.due:
        try:
            plan = make_plan(files.paths[at], files.options)
        except InvalidMessage as error:
            errors.append(error)
            continue
        files.rows += plan.rows
        files.bad_rows += plan.bad_rows
        if len(files.plans) < _KEPT_PLANS:
            files.plans[at] = plan
        first, *lines = plan_lines(plan)
        alike.setdefault(tuple(lines), []).append(first)
    if errors:
        raise _all_of(errors)
    if quiet:
        return
    for same, firsts in list(alike.items())[:_MOST_SHOWN]:
        others = [f"              and {len(firsts) - 1:,} files like it"] if len(firsts) > 1 else []
        _print([firsts[0], *others, *same])
    if len(alike) > _MOST_SHOWN:
        _print([f"and {len(alike) - _MOST_SHOWN:,} other plans; --dry-run prints each"])


def _all_of(errors: Sequence[MarketDataStoreError]) -> MarketDataStoreError:
    if len(errors) == 1:
        return errors[0]
    shown = [str(error) for error in errors[:_MOST_SHOWN]]
    more = [f"and {len(errors) - _MOST_SHOWN:,} other files"] if len(errors) > _MOST_SHOWN else []
    kind = Undecided if any(isinstance(error, Undecided) for error in errors) else InvalidMessage
    return kind("\n".join([f"{len(errors):,} files cannot be loaded; nothing was sent", *shown, *more]))


def _as_stored(options: Options) -> Options:
    """Return the options with the columns that were added to the dataset; the same where the database is away."""
    try:
        with connect(settings().require_database_url()) as connection:
            return replace(options, dataset=as_stored(connection, options.dataset))
    except (MarketDataStoreError, psycopg.Error):
        return options


def _interrupted(fingerprint: str, options: Options) -> Interrupted | None:
    """Return the interrupted run of this load; None where the database does not say, which is found out later."""
    try:
        with connect(settings().require_database_url()) as connection:
            return interrupted(connection, fingerprint, options.dataset.table.name)
    except (MarketDataStoreError, psycopg.Error):
        return None


def _goes_on(files: _Files, earlier: Interrupted) -> str:
    start = files.start
    done_files = f"{start.done:,} file{'s' * (start.done > 1)}" if start.done else ""
    rows = f"{max(start.rows.values()):,} rows of {files.paths[start.done].name}" if start.rows else ""
    where = " and ".join(filter(None, [done_files, rows]))
    return (
        f"goes on behind {where}, where run {earlier.run} was interrupted at {moment(earlier.at)}; --restart sends all"
    )


def _lane_line(lane: Lane) -> str:
    return f"lane          {lane}"


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
