"""Makes the plan of a load, before a row is sent: what feeds each field, and what is wrong with the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb

from market_data_store.datasets.evolved import without_added
from market_data_store.errors import InvalidMessage
from market_data_store.files.duck import database, spilled_bytes
from market_data_store.files.feeds import Feed, Variant
from market_data_store.files.judging import (
    odd_cells,
    reading_of,
    styled,
    survey,
    trimmed,
    with_readings,
    with_style,
)
from market_data_store.files.keys import Keys
from market_data_store.files.layouts import Layout, Part, alike, known, named, recognised
from market_data_store.files.matching import Matching, require_all
from market_data_store.files.names import is_export
from market_data_store.files.options import Options, Undecided
from market_data_store.files.planned import Plan
from market_data_store.files.refusing import require_rows
from market_data_store.files.sources import open_source
from market_data_store.files.tables import Source
from market_data_store.files.times import Reading
from market_data_store.files.zones import zone_named
from market_data_store.wire.fields import fields_of
from market_data_store.wire.reader import stored_defaults


def make_plan(path: Path, options: Options) -> Plan:
    """Look at a file, all of it; raises `Undecided`, which names the option that is missing, and `InvalidMessage`."""
    if options.time_zone is not None:
        zone_named(options.time_zone)
    plan = _matched(path, options)
    with database() as connection:
        while True:
            try:
                _judge(plan, connection)
                plan.spilled = spilled_bytes(connection)
                break
            except duckdb.Error as error:
                reading_of(plan.source, error)
                plan.surveys, plan.clashes = [], []
    return plan


def _matched(path: Path, options: Options) -> Plan:
    layouts = known(options.layouts)
    layout = named(options.reader, options.layouts) if options.reader else None
    if layout is not None:
        if layout.dataset != options.dataset.name:
            raise Undecided(f"--reader {layout.name} reads {layout.dataset}; give --dataset {layout.dataset}")
        options = replace(options, records=options.records or layout.records)
    source = open_source(path, options)
    if not is_export(source.names):  # no row is rejected for a column that nobody has declared
        options = replace(options, dataset=without_added(options.dataset))
    if not source.sample:
        raise InvalidMessage(f"{path}: it holds a header and no row")
    if layout is None and not options.names:
        layout = recognised(layouts, options.dataset.name, source.names, source.sample, has_header=source.has_header)
    if not source.has_header and not options.names:
        if layout is None:
            raise Undecided(_no_header(source, [*alike(layouts, options.dataset.name, source.sample)]))
        if len(layout.names) != len(source.names):
            raise Undecided(
                f"{path}: {layout.name} has {len(layout.names)} columns, the file {len(source.names)}; give --columns"
            )
        source.rename(layout.names)
    constants = _constants(options, layout)
    plan = Plan(source, options, layout, [], zone=(layout.zone if layout and layout.zone else None) or "UTC")
    if source.tickers:
        _add_tickers(plan, constants)
    else:
        parts = layout.rows if layout and layout.rows and not {*layout.rows[0].set} & {*options.constants} else ()
        for part in parts or (Part({}, {}),):
            _add(plan, Matching(source, options, layout, {**constants, **part.set}), part)
        for at, variant in enumerate(plan.variants):
            used = {at for other in plan.variants for feed in other.feeds for at in _spent(feed, source)}
            plan.variants[at] = replace(variant, kept=_kept(source, used), skips_empty=len(plan.variants) > 1)
    ts = plan.variants[0].by_name.get("ts")
    plan.is_assumed = ts is not None and options.time_zone is None and not (layout and layout.zone)
    return plan


def _no_header(source: Source, readers: Sequence[str]) -> str:
    width = len(source.names)
    hint = f", or --reader {' or '.join(readers[:4])}" if readers else ""
    return (
        f"{source.path}: no header, and no known layout of {width} columns; give --columns with {width} names, such as "
        f"--columns ts,open,high,low,close,volume{hint}"
    )


def _constants(options: Options, layout: Layout | None) -> dict[str, str]:
    names = {name: f.name for f in fields_of(options.dataset) for name in f.names}
    for name in options.constants:
        if name not in names:
            known_fields = ", ".join(column.name for column in options.dataset.columns)
            raise Undecided(f"--set {name}: {options.dataset.name} has no such field; use one of {known_fields}")
    given = {names[name]: value for name, value in options.constants.items()}
    mapped = {names.get(name, name) for name in options.columns_of}
    try:
        stored_defaults(options.dataset, given)
    except InvalidMessage as error:
        raise Undecided(f"--set: {error}") from error
    return {**(layout.set if layout else {}), **{n: v for n, v in given.items() if n not in mapped}}


def _add(plan: Plan, matching: Matching, part: Part) -> Variant:
    feeds = matching.feeds(part.map)
    require_all(matching, feeds)
    if plan.layout is not None and plan.layout.day:
        feeds["ts"] = replace(feeds["ts"], reading=_of_day(plan))
    if (
        plan.layout is not None
        and plan.options.time_unit is None
        and plan.options.time_format is None
        and "ts" in feeds
    ):
        layout = plan.layout
        if layout.format is not None:
            clock = "%H" in layout.format or "%I" in layout.format
            reading = Reading("format", layout.format, "%z" in layout.format, clock)
            feeds["ts"] = replace(feeds["ts"], reading=reading)
        elif layout.unit is not None:
            reading = Reading("epoch", layout.unit, is_absolute=True, in_nanoseconds=True)
            feeds["ts"] = replace(feeds["ts"], reading=reading)
    variant = Variant(tuple(feeds.values()), matching.constants, label=",".join(part.set.values()))
    plan.variants.append(variant)
    return variant


def _of_day(plan: Plan) -> Reading:
    day = plan.source.day
    if day is None:
        raise Undecided(
            f"{plan.path}: its times count from midnight, and the day stands in the file's name, as "
            "in 20131007_trade.csv: this name has none; give --columns and --time-format"
        )
    return Reading("day", day)


def _add_tickers(plan: Plan, constants: Mapping[str, str]) -> None:
    """Add the rows of each ticker of a header of three lines."""
    source, options = plan.source, plan.options
    tickers = list(dict.fromkeys(ticker for ticker in source.tickers[1:] if ticker))
    symbol = constants.get("symbol")
    if symbol is not None and len(tickers) > 1:
        if symbol not in tickers:
            raise Undecided(
                f"{plan.path}: it holds {', '.join(tickers)}; give --symbol with one of them, or leave it out"
            )
        tickers = [symbol]
    for ticker in tickers:
        allowed = frozenset(at for at, other in enumerate(source.tickers) if other == ticker or at == 0)
        own = {**constants, "symbol": symbol or ticker}
        _add(plan, Matching(source, options, plan.layout, own, allowed), Part({}, {}))
        variant = plan.variants[-1]
        used = {at for feed in variant.feeds for at in _spent(feed, source)} | (set(range(len(source.names))) - allowed)
        plan.variants[-1] = replace(variant, kept=_kept(source, used), skips_empty=True, label=own["symbol"])


def _spent(feed: Feed, source: Source) -> tuple[int, ...]:
    """The columns of which a field holds all that they say.

    What fills a field that came after version 0.4 (side, venue, ...) is kept under the vendor's own name, too, unless
    the file is one of the store's own exports.
    """
    later = feed.field.rule.later and feed.name != "metadata" and not is_export(source.names)
    return () if later else feed.columns


def _kept(source: Source, used: set[int]) -> tuple[tuple[str, int], ...]:
    kept: list[tuple[str, int]] = []
    names: set[str] = set()
    for at, name in enumerate(source.names):
        if at in used or (not name and _counts(source, at)):
            continue
        base = unique = name or f"column {at + 1}"
        number = 2
        while unique in names:
            unique, number = f"{base}_{number}", number + 1
        names.add(unique)
        kept.append((unique, at))
    return tuple(kept)


def _counts(source: Source, at: int) -> bool:
    """Whether a column without a name only counts the rows, as the index of pandas does."""
    cells = [row[at] for row in source.sample]
    first = int(cells[0]) if cells and cells[0] is not None and cells[0].isdigit() and len(cells[0]) < 10 else None
    return first is not None and cells == [str(first + place) for place in range(len(cells))]


def _judge(plan: Plan, connection: duckdb.DuckDBPyConnection) -> None:
    source, options = plan.source, plan.options
    variants = [with_readings(variant, source, options, connection) for variant in plan.variants]
    style = styled(variants, source, options, connection, ())
    variants = [with_style(variant, style) for variant in variants]
    plan.variants = variants
    _survey(plan, connection)
    again = [trimmed(variant, found) for variant, found in zip(plan.variants, plan.surveys, strict=True)]
    if again != plan.variants:
        plan.variants = variants = again
        _survey(plan, connection)
    numbers = {feed.name for variant in variants for feed in variant.feeds if feed.is_number}
    if not style.is_rich and any(numbers & found.odd.keys() for found in plan.surveys):
        style = styled(variants, source, options, connection, odd_cells(variants, source, connection))
        plan.variants = [with_style(variant, style) for variant in variants]
        _survey(plan, connection)
    require_rows(plan, connection)


def _survey(plan: Plan, connection: duckdb.DuckDBPyConnection) -> None:
    plan.surveys, plan.clashes, plan.equal_rows = [], [], 0
    for variant in plan.variants:
        plan.falls = plan.clock(variant) is not None and _falls(plan, variant, connection)
        if not _has_keys(plan, variant):
            plan.surveys.append(survey(variant, plan.source, connection, plan.clock(variant), None))
            continue
        keys = Keys(connection, compares=False)
        found = survey(variant, plan.source, connection, plan.clock(variant), keys)
        if not keys.are_proved:
            keys = Keys(connection, compares=True)
            found = survey(variant, plan.source, connection, plan.clock(variant), keys)
            clash = keys.clash()
            plan.clashes += [clash] if clash is not None else []
            plan.equal_rows += keys.equal_rows()
        plan.surveys.append(found)


def _has_keys(plan: Plan, variant: Variant) -> bool:
    """Whether rows of one file may replace each other: those whose key is made of what they hold may not."""
    made = [f.name for f in fields_of(plan.options.dataset) if f.key and f.rule.content_hash]
    fed = variant.by_name.keys() | variant.constants.keys()
    return all(name in fed or (name == "seq" and "trade_id" in fed) for name in made)


def _falls(plan: Plan, variant: Variant, connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the file begins with the newest rows."""
    value = variant.by_name["ts"].value
    with plan.source.table(connection, ()) as table:
        found = connection.sql(f"SELECT {value} FROM {variant.over(table)} LIMIT 5000").fetchall()
    ticks = [tick for (tick,) in found if tick is not None]
    return len(ticks) > 1 and bool(ticks[0] > ticks[-1])
