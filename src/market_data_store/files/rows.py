"""Makes the rows of a plan: tables of what can be read, and single rows of what will be rejected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.errors import InvalidMessage
from market_data_store.files.duck import batches, database
from market_data_store.files.feeds import LINE, ODD, SKIP, Feed, Variant
from market_data_store.files.planned import Plan
from market_data_store.files.tables import quoted
from market_data_store.wire.arrow import Frame

#: An integer as it is exported.
_INTEGER = "0|-?[1-9][0-9]{0,18}"
_SEQUENCE = "#seq"


@dataclass(frozen=True, slots=True)
class Made:
    """Rows of one batch: a table, or a list of rows that a worker will reject."""

    constants: dict[str, str]
    #: The index in the file of each row.
    rows: pa.Array
    table: pa.Table | None = None
    bad: list[Any] = field(default_factory=list)
    #: The place of the variant in the plan.
    variant: int = 0


def made_rows(plan: Plan) -> Iterator[Made]:
    """Yield the rows of the file; raises `InvalidMessage` if it can no longer be read as it could."""
    with database() as connection:
        try:
            for at, (variant, found) in enumerate(zip(plan.variants, plan.surveys, strict=True)):
                rows = _of_variant(plan, variant, connection, is_clean=found.is_clean, names_broken=at == 0)
                yield from (replace(made, variant=at) for made in rows)
        except duckdb.Error as error:
            raise InvalidMessage(f"{plan.path}: {str(error).splitlines()[0]}; was it changed meanwhile?") from error


def _of_variant(
    plan: Plan, variant: Variant, connection: duckdb.DuckDBPyConnection, *, is_clean: bool, names_broken: bool
) -> Iterator[Made]:
    clock = plan.clock(variant)
    row = 0
    with plan.source.table(connection, [at for _, at in variant.kept]) as table:
        for batch in batches(
            connection, f"SELECT {_columns(plan, variant, is_clean=is_clean)} FROM {variant.over(table)}"
        ):
            rows = pa.arange(row, row + batch.num_rows)
            row += batch.num_rows
            made = pa.Table.from_batches([batch])
            lost = None
            ts = variant.by_name.get("ts")
            if ts is not None and ts.reading is not None:
                at = made.column_names.index("ts")
                ticks = made.column("ts").combine_chunks()
                if clock is not None:
                    before, ticks = ticks, clock.utc(ticks, _series(made, variant))
                    lost = pc.and_(before.is_valid(), ticks.is_null()) if ticks.null_count > before.null_count else None
                unit = "ns" if ts.reading.in_nanoseconds else "us"
                made = made.set_column(at, "ts", ticks.cast(pa.timestamp(unit, tz="UTC")))
            yield from _divided(plan, variant, made, rows, lost, is_clean=is_clean, names_broken=names_broken)


def _columns(plan: Plan, variant: Variant, *, is_clean: bool) -> str:
    columns = [f"{_typed(feed)} AS {quoted(feed.name)}" for feed in variant.feeds if feed.name != "metadata"]
    sequence = variant.sequence
    if sequence is not None:
        text = sequence.value
        columns.append(
            f"CASE WHEN regexp_full_match({text}, '{_INTEGER}') THEN TRY_CAST({text} AS BIGINT) END AS \"{_SEQUENCE}\""
        )
    metadata = variant.metadata(plan.source.kept(variant.kept) if variant.kept else "")
    if metadata is not None:
        columns.append(f"nullif({metadata}, '{{}}') AS metadata" if variant.kept else f"{metadata} AS metadata")
    if not is_clean:
        odd = f"CASE WHEN bad IS NULL THEN {variant.odd()} END"
        skip = variant.skipped(len(plan.source.names))
        columns += [f'bad AS "{LINE}"', f'{odd} AS "{ODD}"', f'{skip} AS "{SKIP}"']
    ts = variant.by_name.get("ts")
    if ts is not None and plan.clock(variant) is not None and not is_clean:
        columns.append(f'{ts.text} AS "#ts"')
    return ", ".join(columns)


def _typed(feed: Feed) -> str:
    if feed.field.kind.copy_type == "timestamptz" and feed.name != "ts" and feed.reading is not None:
        ticks = f"({feed.value})::BIGINT"
        return f"make_timestamp_ns({ticks})" if feed.reading.in_nanoseconds else f"make_timestamp({ticks})"
    return f"({feed.value})::BIGINT" if feed.name == "ts" else feed.value


def _series(made: pa.Table, variant: Variant) -> pa.Array | None:
    names = [feed.name for feed in variant.feeds if feed.field.key and feed.name != "ts"]
    if not names:
        return None
    texts = [made.column(name).cast(pa.string()).combine_chunks() for name in names]
    return texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace")


def _divided(
    plan: Plan,
    variant: Variant,
    made: pa.Table,
    rows: pa.Array,
    lost: pa.Array | None,
    *,
    is_clean: bool,
    names_broken: bool,
) -> Iterator[Made]:
    constants = {**variant.constants, **plan.times_defaults}
    if is_clean and lost is None:
        yield from _tables(variant, constants, made, rows)
        return
    if is_clean:
        line = odd = pa.nulls(len(made), pa.string())
        good = pc.invert(lost)
    else:
        line, odd = made.column(LINE).combine_chunks(), made.column(ODD).combine_chunks()
        skip = made.column(SKIP).combine_chunks()
        good = pc.and_(pc.and_(line.is_null(), odd.is_null()), pc.invert(skip))
        if lost is not None:
            good = pc.and_(good, pc.invert(lost))
    plain = made.drop_columns([name for name in made.column_names if name.startswith("#") and name != _SEQUENCE])
    yield from _tables(variant, constants, plain.filter(good), rows.filter(good))
    bad = pc.invert(good) if is_clean else pc.and_(pc.invert(good), pc.invert(skip))
    if not names_broken:
        bad = pc.and_(bad, line.is_null())
    if not pc.any(bad).as_py():
        return
    times = made.column("#ts").filter(bad).to_pylist() if "#ts" in made.column_names else None
    objects = Frame(plain.filter(bad).drop_columns([_SEQUENCE] if _SEQUENCE in plain.column_names else [])).objects()
    found = []
    for at, (broken, cells, row) in enumerate(
        zip(line.filter(bad).to_pylist(), odd.filter(bad).to_pylist(), objects, strict=True)
    ):
        if broken is not None:
            found.append(json.loads(broken))
            continue
        raw = json.loads(cells) if cells is not None else {}
        if row.get("metadata") is not None:
            row["metadata"] = _json(row["metadata"])
        if times is not None and row.get("ts") is None and "ts" not in raw and times[at]:
            raw["ts"] = times[at]
        found.append({**{name: value for name, value in row.items() if value is not None}, **_refused(variant, raw)})
    yield Made(constants, rows.filter(bad), bad=found)


def _refused(variant: Variant, raw: dict[str, str]) -> dict[str, Any]:
    """Return cells as a worker will refuse them, with their text: it might read some of them in another way."""
    found: dict[str, Any] = {}
    for name, text in raw.items():
        f = variant.by_name[name].field
        try:
            f.checked(text)
        except ValueError:
            found[name] = text
        else:
            found[name] = [text]
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _hoisted(constants: dict[str, str], made: pa.Table) -> tuple[dict[str, str], pa.Table]:
    """Return constants and table with a name that is the same in all rows as a constant: it need not be sent by row."""
    for name in ("provider", "symbol", "interval"):
        if name not in made.column_names or not pa.types.is_string(made.column(name).type):
            continue
        column = made.column(name)
        value = column[0].as_py()
        if value is not None and not column.null_count and pc.all(pc.equal(column, value)).as_py():
            constants, made = {**constants, name: value}, made.drop_columns([name])
    return constants, made


def _tables(variant: Variant, constants: dict[str, str], made: pa.Table, rows: pa.Array) -> Iterator[Made]:
    if not len(made):
        return
    constants, made = _hoisted(constants, made)
    sequence = variant.sequence
    if sequence is None:
        yield Made(constants, rows, table=made)
        return
    # An integer is itself; any other text is an id, which the worker hashes.
    texts, integers = made.column(sequence.name), made.column(_SEQUENCE)
    is_integer = pc.or_(integers.is_valid(), texts.is_null())
    for mask, column in ((is_integer, integers), (pc.invert(is_integer), texts)):
        if pc.any(mask).as_py():
            part = made.filter(mask)
            part = part.set_column(made.column_names.index(sequence.name), sequence.name, column.filter(mask))
            yield Made(constants, rows.filter(mask.combine_chunks()), table=part.drop_columns([_SEQUENCE]))
