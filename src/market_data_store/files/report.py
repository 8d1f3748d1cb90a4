"""A plan and its outcome in words: a few lines for people, and the same as JSON."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pyarrow as pa

from market_data_store.files.feeds import Feed
from market_data_store.files.names import plain
from market_data_store.files.planned import Plan
from market_data_store.files.rows import Made, made_rows
from market_data_store.wire.arrow import frame_of, json_values, read_table
from market_data_store.wire.columns import decode
from market_data_store.wire.fields import fields_of
from market_data_store.wire.moments import UNIX_EPOCH, microseconds

#: Rows that a dry run shows.
PREVIEWED = 5
_MOST_NAMES = 12


def plan_lines(plan: Plan) -> list[str]:
    """Return the plan in a few lines."""
    lines = [f"file          {plan.path.name}: {_format(plan)}, {plan.rows:,} rows{_span(plan)}"]
    if plan.layout is not None:
        lines.append(f"reader        {plan.layout.name}: {plan.layout.title}")
    for variant in plan.variants:
        fed = [_fed(feed) for feed in variant.feeds if feed.name != "ts"]
        label = f" [{variant.label}]" if variant.label else ""
        lines.append(f"fields{label:<8}{', '.join(fed)}")
    ts = plan.variants[0].by_name.get("ts")
    if ts is not None and ts.reading is not None:
        lines.append(f"ts            {ts.said}: {ts.reading.said}{_zone(plan, ts)}")
    same = {name: value for name, value in plan.variants[0].constants.items() if name not in _varying(plan)}
    if same:
        lines.append(f"all rows      {', '.join(f'{name}={value}' for name, value in same.items())}")
    kept = list(dict.fromkeys(name for variant in plan.variants for name, _ in variant.kept))
    if kept:
        more = f" and {len(kept) - _MOST_NAMES} more" if len(kept) > _MOST_NAMES else ""
        lines.append(f"metadata      {', '.join(kept[:_MOST_NAMES])}{more}")
    if plan.spilled:
        lines.append(f"spilled       {plan.spilled:,} bytes of keys to {tempfile.gettempdir()}")
    return [*lines, *problem_lines(plan)]


def problem_lines(plan: Plan) -> list[str]:
    """Return what the pass over the file found wrong, with counts."""
    lines = []
    first = plan.surveys[0]
    if first.broken:
        at = ", ".join(f"{n:,}" for n in sorted(plan.source.numbers(first.broken_first).values()))
        lines.append(
            f"problem       {first.broken:,} {_plural(plan.source.unit, first.broken)} {_broken(plan)} "
            f"({plan.source.unit} {at}{', ...' if first.broken > 3 else ''})"
        )
    for variant, found in zip(plan.variants, plan.surveys, strict=True):
        for name, number in found.odd.items():
            said = variant.by_name[name].said
            lines.append(f"problem       {name}: {number:,} {_plural('row', number)} of column {said} cannot be read")
        for name, number in found.missing.items():
            lines.append(f"problem       {name}: {number:,} {_plural('row', number)} without a value")
    if plan.superseded:
        lines.append(
            f"problem       {plan.superseded:,} {_plural('row', plan.superseded)} with the key of a later row and "
            "other values: the last wins (--yes)"
        )
    return lines


def _broken(plan: Plan) -> str:
    return "that hold no record" if _format(plan) == "JSON" else "of another length"


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"


def _format(plan: Plan) -> str:
    return type(plan.source).__name__.removesuffix("Source").replace("Csv", "CSV").replace("Json", "JSON")


def _span(plan: Plan) -> str:
    ts = plan.variants[0].by_name.get("ts")
    bounds = [(found.first, found.last) for found in plan.surveys if found.first is not None]
    if ts is None or ts.reading is None or not bounds:
        return ""
    factor = 1_000 if ts.reading.in_nanoseconds else 1
    ends = [min(first for first, _ in bounds if first is not None), max(last for _, last in bounds if last is not None)]
    try:
        first, last = (UNIX_EPOCH + timedelta(microseconds=end // factor) for end in ends)
    except OverflowError:
        return ""
    return f", {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC"


def _fed(feed: Feed) -> str:
    scale = f" x {feed.scale}" if feed.scale is not None else ""
    same = plain(feed.said) == plain(feed.name)
    return f"{feed.name}{'' if same else ' = ' + feed.said}{scale}"


def _varying(plan: Plan) -> set[str]:
    first = plan.variants[0].constants
    return {name for variant in plan.variants for name, value in variant.constants.items() if first.get(name) != value}


def _zone(plan: Plan, ts: Feed) -> str:
    assert ts.reading is not None  # noqa: S101
    if ts.reading.is_absolute:
        return ""
    zone = plan.zone_of(ts.reading)
    if plan.options.time_zone is not None:
        return f", {zone}"
    if not plan.is_assumed or ts.reading.zone:
        return f", {zone} (as this reader's files are; --time-zone says otherwise)"
    return " without a zone, taken as UTC; --time-zone says otherwise" if ts.reading.has_clock else ", as UTC days"


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON has it."""
    return {
        "file": str(plan.path),
        "dataset": plan.options.dataset.name,
        "reader": plan.layout.name if plan.layout else None,
        "rows": plan.rows,
        "rows_with_problems": plan.bad_rows,
        "superseded": plan.superseded,
        "variants": [
            {
                "fields": {feed.name: feed.said for feed in variant.feeds},
                "constants": dict(variant.constants),
                "metadata": [name for name, _ in variant.kept],
            }
            for variant in plan.variants
        ],
        "times": _time_facts(plan),
        "problems": [
            {"broken_lines": found.broken, "unreadable": found.odd, "missing": found.missing} for found in plan.surveys
        ],
    }


def _time_facts(plan: Plan) -> dict[str, Any] | None:
    ts = plan.variants[0].by_name.get("ts")
    if ts is None or ts.reading is None:
        return None
    zone = "UTC" if ts.reading.is_absolute else plan.zone_of(ts.reading)
    return {
        "column": ts.said,
        "reading": ts.reading.said,
        "zone": zone,
        "zone_is_assumed": plan.is_assumed and not ts.reading.is_absolute,
    }


def preview(plan: Plan) -> list[dict[str, Any]]:
    """Return the first rows as they would be stored; a row that would be rejected has its reason as `rejected`."""
    rows: list[dict[str, Any]] = []
    for made in islice(made_rows(plan), len(plan.variants) + 1):
        if made.table is not None:
            rows += _stored(plan, made)
        if len(rows) >= PREVIEWED:
            break
    return rows[:PREVIEWED]


def _stored(plan: Plan, made: Made) -> list[dict[str, Any]]:
    dataset = plan.options.dataset
    frame = frame_of(made.table).part(0, PREVIEWED)
    decoded = decode(dataset, [read_table(dataset, frame, made.constants)], [microseconds(datetime.now(UTC))])
    columns = {f.name: json_values(_utc(decoded.rows.column(f.name))) for f in fields_of(dataset)}
    rows = [{name: values[at] for name, values in columns.items()} for at in range(decoded.rows.num_rows)]
    return rows + [{"rejected": reject.reason} for reject in decoded.rejects[0]]


def _utc(column: pa.Array) -> pa.Array:
    return column.cast(pa.timestamp("us", tz="UTC")) if pa.types.is_timestamp(column.type) else column


def shown_row(row: Mapping[str, Any]) -> str:
    """Return a row in one line."""
    return "  ".join(f"{name}={value}" for name, value in row.items() if value is not None)
