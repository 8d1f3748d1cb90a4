"""Looks at every row of a file before any is sent: which cells cannot be read, and which reading fits all times.

A pass costs what reading the file costs. The first assumes what the first rows show; only a file with oddities is read
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.errors import InvalidMessage
from market_data_store.files.cells import is_missing
from market_data_store.files.duck import batches, require_room
from market_data_store.files.feeds import Feed, Variant
from market_data_store.files.keys import Keys
from market_data_store.files.numbers import Style, decimal_of
from market_data_store.files.options import Options, Undecided
from market_data_store.files.tables import Source
from market_data_store.files.times import Reading, given, of_type
from market_data_store.files.zones import Clock

#: Cells that a cast cannot read are looked at to learn how numbers are written, at most so many.
_MOST_ODD = 2_000
_MOST_SHOWN = 3
#: Marks of lines that are not rows.
_BROKEN, _EMPTY = 1 << 61, 1 << 60


@dataclass(slots=True)
class Survey:
    """What a pass over the file found."""

    #: Lines and records of the file, without those that hold nothing.
    rows: int = 0
    #: Rows that hold nothing.
    empty: int = 0
    #: Lines that are not rows, and the first of them by the index of the row.
    broken: int = 0
    broken_first: list[int] = field(default_factory=list)
    #: By field, rows whose cell cannot be read, and rows that lack what they need.
    odd: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    #: Rows that will be rejected for it.
    bad_rows: int = 0
    first: int | None = None
    last: int | None = None

    @property
    def is_clean(self) -> bool:
        """Whether every record is a row that can be read."""
        return not (self.empty or self.broken or self.odd)


def with_readings(variant: Variant, source: Source, options: Options, connection: duckdb.DuckDBPyConnection) -> Variant:
    """Return the variant with the reading of each time; raises `Undecided`."""
    changed: dict[str, Feed] = {}
    for feed in variant.feeds:
        if not feed.is_time or feed.reading is not None:
            continue
        feed = _untrimmed(feed, source)
        said = given(options.time_unit, options.time_format) if feed.name == "ts" else None
        if said is not None and feed.type == "VARCHAR":
            cells = _cells(source, feed)
            fine = said.kind == "format" and any(r.in_nanoseconds for r in of_type("VARCHAR", cells))
            changed[feed.name] = replace(feed, reading=replace(said, in_nanoseconds=said.in_nanoseconds or fine))
            continue
        readings = of_type(feed.type, _cells(source, feed))
        if len(readings) > 1:
            readings = _fitting(source, feed, readings, connection)
        if len(readings) == 1:
            changed[feed.name] = replace(feed, reading=readings[0])
        elif feed.field.required or feed.name == "ts":
            raise Undecided(_which(source, feed, readings))
    feeds = tuple(f for f in variant.with_feeds(changed).feeds if not f.is_time or f.reading is not None)
    return replace(variant, feeds=feeds)


def _untrimmed(feed: Feed, source: Source) -> Feed:
    """Return a feed whose cells are not trimmed, if the first of them need not be."""
    cells = [row[feed.columns[0]] for row in source.sample]
    return replace(feed, trims=any(cell is not None and cell != cell.strip() for cell in cells))


def trimmed(variant: Variant, found: Survey) -> Variant:
    """Return the variant that trims times of which some cannot be read as they are."""
    names = [feed.name for feed in variant.feeds if not feed.trims and found.odd.get(feed.name)]
    return variant.with_feeds({name: replace(variant.by_name[name], trims=True) for name in names})


def _cells(source: Source, feed: Feed) -> list[str | None]:
    if len(feed.columns) == 1:
        return [row[feed.columns[0]] for row in source.sample]
    found: list[str | None] = []
    for row in source.sample:
        parts = [(row[at] or "").strip() for at in feed.columns]
        if feed.pads_clock and parts[1].isdigit():
            parts[1] = parts[1].zfill(6)
        found.append(" ".join(parts) if parts[0] else None)
    return found


def _fitting(
    source: Source, feed: Feed, readings: Sequence[Reading], connection: duckdb.DuckDBPyConnection
) -> list[Reading]:
    """Return the readings that fit all times of the file: those that any of them fits."""
    tests = [f"({reading.sql(feed.own_text)}) IS NOT NULL" for reading in readings]
    counts = ", ".join(f"count(*) FILTER ({test})" for test in tests)
    with source.table(connection, ()) as table:
        (numbers,) = connection.sql(f"SELECT count(*) FILTER ({' OR '.join(tests)}), {counts} FROM {table}").fetchall()
    total, *each = numbers
    return [reading for reading, number in zip(readings, each, strict=True) if number == total]


def _which(source: Source, feed: Feed, readings: Sequence[Reading]) -> str:
    examples = [cell for cell in _cells(source, feed) if cell is not None and not is_missing(cell)]
    shown = repr(examples[0][:40]) if examples else "nothing"
    formats = [reading.detail for reading in readings if reading.kind == "format"]
    if len(readings) > 1:
        ways = [
            f"--time-format '{r.detail}'" if r.kind == "format" else f"--time-unit {r.detail or 'date'}"
            for r in readings
        ]
        return f"{source.path}: {feed.said} ({shown}): no row decides how it is read; give {' or '.join(ways[:3])}"
    if formats or not examples or not examples[0].strip().lstrip("+-").replace(".", "").isdigit():
        return (
            f"{source.path}: {feed.said} ({shown}): no times that can be read as one; give --time-format, such as "
            f"%d/%m/%Y, or --map {feed.name}=COLUMN"
        )
    return (
        f"{source.path}: {feed.said} ({shown}): the size does not show the unit; give --time-unit s, ms, us, ns or "
        "date, or --time-format"
    )


def styled(
    variants: Sequence[Variant],
    source: Source,
    options: Options,
    connection: duckdb.DuckDBPyConnection,
    odd: Sequence[str],
) -> Style:
    """Return how the numbers of the file are written, from cells that a cast cannot read; raises `Undecided`."""
    numbers = [feed for variant in variants for feed in variant.feeds if feed.is_number]
    plain = [row[at] for feed in numbers for at in feed.columns for row in source.sample]
    decimal = decimal_of(plain, odd, options.decimal, comma_is_free=source.comma_is_free)
    return Style(bool(odd) or bool(options.nulls) or decimal == ",", decimal, options.nulls)


def odd_cells(variants: Sequence[Variant], source: Source, connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return cells of numbers that a cast cannot read, from all over the file."""
    found: list[str] = []
    for variant in variants:
        numbers = [feed for feed in variant.feeds if feed.is_number]
        if not numbers:
            continue
        cells = ", ".join(f"CASE WHEN {feed.is_odd} THEN {feed.text} END" for feed in numbers)
        odd = " OR ".join(f"({feed.is_odd})" for feed in numbers)
        with source.table(connection, ()) as table:
            query = f"SELECT {cells} FROM {variant.over(table)} WHERE {odd} LIMIT {_MOST_ODD}"
            rows = connection.sql(query).fetchall()
        found += [cell for row in rows for cell in row if cell is not None]
    return found


def with_style(variant: Variant, style: Style) -> Variant:
    """Return the variant whose cells are read in a style."""
    return replace(variant, feeds=tuple(replace(feed, style=style) for feed in variant.feeds))


def survey(
    variant: Variant,
    source: Source,
    connection: duckdb.DuckDBPyConnection,
    clock: Clock | None,
    keys: Keys | None,
) -> Survey:
    """Pass over the file once; raises `Damaged`, and `Undecided` for bytes that are not text."""
    found = Survey()
    checks = [(feed.name, feed.is_odd, feed) for feed in variant.feeds]
    needed = [feed for feed in variant.feeds if feed.field.required and not _may_be_text(feed)]
    bits = [f"(CASE WHEN {odd} THEN {1 << at} ELSE 0 END)" for at, (_, odd, _) in enumerate(checks) if odd != "false"]
    lacks = [f"(CASE WHEN ({feed.value}) IS NULL THEN {1 << (30 + at)} ELSE 0 END)" for at, feed in enumerate(needed)]
    flags = " | ".join([*bits, *lacks]) or "0"
    others = [f for f in variant.feeds if f.name in variant.key_names]
    key = f"hash({', '.join(f.value for f in others)})" if others else "0::UBIGINT"
    ts = variant.by_name.get("ts")
    values = _hash_of(variant, source) if keys is not None and keys.compares else "0::UBIGINT"
    width = len(source.names)
    # Most rows are fine, and of the others each check says what is not.
    fine = " AND ".join(["bad IS NULL", *filter(None, (feed.is_fine for feed in variant.feeds))])
    query = (
        f"SELECT ({ts.value if ts else 'NULL'})::BIGINT AS t, {key} AS k, {values} AS v, "
        f"CASE WHEN {fine} THEN 0 WHEN bad IS NOT NULL THEN {_BROKEN} WHEN {variant.skipped(width)} THEN {_EMPTY} "
        f"ELSE ({flags})::BIGINT END AS f FROM "
    )
    row = 0
    kept = [at for _, at in variant.kept]
    with source.table(connection, kept) as table:
        for batch in batches(connection, query + variant.over(table)):
            _note(found, batch.column("f"), row, checks, needed)
            rows = pa.arange(row, row + batch.num_rows)
            row += batch.num_rows
            if found.empty or found.broken:
                good = pc.less(batch.column("f"), _EMPTY)
                batch, rows = batch.filter(good), rows.filter(good)
            ticks = batch.column("t")
            if clock is not None:
                ticks = clock.utc(ticks, batch.column("k") if others else None)
            if keys is not None:
                keys.add(ticks, batch.column("k"), batch.column("v"), rows)
            bounds = pc.min_max(ticks)
            for name, better in (("first", min), ("last", max)):
                value = bounds["min" if name == "first" else "max"].as_py()
                before = getattr(found, name)
                if value is not None:
                    setattr(found, name, value if before is None else better(before, value))
    return found


def _may_be_text(feed: Feed) -> bool:
    return feed.is_sequence


def _hash_of(variant: Variant, source: Source) -> str:
    parts = [f"({feed.value})::VARCHAR" for feed in variant.feeds]
    if variant.kept:
        parts.append(source.kept(variant.kept))
    return f"hash({', '.join(parts) or '0'})"


def _note(
    found: Survey, flags: pa.Array, start: int, checks: Sequence[tuple[str, str, Feed]], needed: Sequence[Feed]
) -> None:
    for item in pc.value_counts(flags).to_pylist():
        value, number = item["values"], item["counts"]
        if value == _BROKEN:
            found.broken += number
            if len(found.broken_first) < _MOST_SHOWN:
                places = pc.indices_nonzero(pc.equal(flags, value)).to_pylist()
                found.broken_first += [start + at for at in places[: _MOST_SHOWN - len(found.broken_first)]]
        elif value == _EMPTY:
            found.empty += number
        else:
            found.rows += number
            found.bad_rows += number if value else 0
            for at, (name, _, _) in enumerate(checks):
                if value >> at & 1:
                    found.odd[name] = found.odd.get(name, 0) + number
            for at, feed in enumerate(needed):
                if value >> (30 + at) & 1 and not _is_odd(value, checks, feed):
                    found.missing[feed.name] = found.missing.get(feed.name, 0) + number


def _is_odd(value: int, checks: Sequence[tuple[str, str, Feed]], feed: Feed) -> bool:
    return any(value >> at & 1 for at, (name, _, _) in enumerate(checks) if name == feed.name)


def reading_of(source: Source, error: duckdb.Error) -> bool:
    """Return whether the file can be read again line by line after this error; raises what else it means."""
    if source.read_carefully():
        return True
    require_room(source.path, error)
    raise InvalidMessage(f"{source.path}: {str(error).splitlines()[0]}") from error
