"""Refuses a file of which nothing should be sent: no row can be stored, or rows would replace each other unasked."""

from __future__ import annotations

import duckdb

from market_data_store.errors import InvalidMessage
from market_data_store.files.feeds import Variant
from market_data_store.files.options import Undecided
from market_data_store.files.planned import Plan
from market_data_store.wire.fields import names_of

#: Of names at most so many.
_MOST_NAMED = 10


def require_rows(plan: Plan, connection: duckdb.DuckDBPyConnection) -> None:
    """Raise `Undecided` if no row can be stored, or if rows of one key would replace each other unasked."""
    if not plan.rows:
        raise InvalidMessage(f"{plan.path}: it holds no row")
    for variant, found in zip(plan.variants, plan.surveys, strict=True):
        ts = variant.by_name.get("ts")
        if ts is not None and found.odd.get("ts") and ts.reading is not None and ts.reading.kind == "epoch":
            example = _example(plan, variant, "ts", connection)
            if example.lstrip("+-").replace(".", "", 1).isdigit():
                raise Undecided(
                    f"{plan.path}: {ts.said}: most are {ts.reading.said}, and {found.odd['ts']:,} are not, such as "
                    f"{example!r}; give --time-unit s, ms, us or ns, or --map ts=COLUMN"
                )
    if plan.options.dataset.unknown == "reject":
        _require_known(plan, connection)
    if plan.bad_rows >= plan.rows:
        raise Undecided(_nothing(plan, connection))
    if plan.clashes and not plan.options.last_wins:
        raise Undecided(_clashing(plan))


def _require_known(plan: Plan, connection: duckdb.DuckDBPyConnection) -> None:
    """Raise `Undecided` if the file has values that would be kept in metadata: the dataset takes no unknown fields."""
    dataset, names = plan.options.dataset, plan.source.names
    for variant in plan.variants:
        if not variant.kept:
            continue
        known = names_of(dataset).known.union(names[at] for feed in variant.feeds for at in feed.columns)
        kept = plan.source.kept(variant.kept)
        with plan.source.table(connection, [at for _, at in variant.kept]) as table:
            query = f"SELECT DISTINCT unnest(json_keys(kept)) FROM (SELECT {kept} AS kept FROM {variant.over(table)})"
            found = connection.sql(query).fetchall()
        if unknown := sorted({name for (name,) in found} - known):
            more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
            raise Undecided(
                f"{plan.path}: {dataset.name} does not know {', '.join(map(repr, unknown[:_MOST_NAMED]))}{more}, and "
                f'its contract is unknown = "reject"; give --map FIELD=COLUMN, declare a column, or load with '
                f"MDS_UNKNOWN={dataset.name}=keep, which keeps them in metadata"
            )


def _example(plan: Plan, variant: Variant, name: str, connection: duckdb.DuckDBPyConnection) -> str:
    feed = variant.by_name[name]
    with plan.source.table(connection, ()) as table:
        found = connection.sql(f"SELECT {feed.text} FROM {variant.over(table)} WHERE {feed.is_odd} LIMIT 1").fetchall()
    return str(found[0][0])[:40] if found else ""


def _nothing(plan: Plan, connection: duckdb.DuckDBPyConnection) -> str:
    for variant, found in zip(plan.variants, plan.surveys, strict=True):
        for name, number in found.odd.items():
            feed, example = variant.by_name[name], _example(plan, variant, name, connection)
            return (
                f"{plan.path}: no row can be stored: {name}: column {feed.said} cannot be read in {number:,} rows, "
                f"such as {example!r}; give --map {name}=COLUMN"
            )
        for name, number in found.missing.items():
            feed = variant.by_name[name]
            return (
                f"{plan.path}: no row can be stored: {name}: column {feed.said} is empty in {number:,} rows; give "
                f"--map {name}=COLUMN"
            )
    return f"{plan.path}: no row can be stored: its lines are not of one length; give --delimiter or --skip"


def _clashing(plan: Plan) -> str:
    clash = plan.clashes[0]
    numbers = plan.source.numbers(sorted((clash.first, clash.second)))
    unit = plan.source.unit
    key = [name for name in ("ts", *plan.variants[0].key_names) if name in plan.variants[0].by_name]
    keys = sum(found.keys for found in plan.clashes)
    ways = ["--map seq=COLUMN"] if "seq" in plan.options.dataset.key else [f"--map {key[-1] if key else 'ts'}=COLUMN"]
    ts = plan.variants[0].by_name.get("ts")
    if (
        plan.is_assumed
        and ts is not None
        and ts.reading is not None
        and ts.reading.has_clock
        and not ts.reading.is_absolute
    ):
        ways.append("--time-zone ZONE (in the hour that a clock change repeats, the order of rows decides)")
    return (
        f"{plan.path}: {unit}s {numbers[clash.first]:,} and {numbers[clash.second]:,} have the same key "
        f"({', '.join(key)}) and different values, as have {keys:,} keys in all; give {', '.join(ways)}, or --yes, "
        "with which the last row wins"
    )
