"""The SQL of a dataset: composed of its declared names, and of the casts to the types that its columns have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from psycopg import sql

from market_data_store.datasets import ENQUEUED_AT, Dataset
from market_data_store.datasets.registry import span_of
from market_data_store.postgres.casts import Cast
from market_data_store.wire.fields import fields_of

_COPY = "COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)"
#: Has the declared types, whatever the owner did to the table: the insert casts. Columns and defaults that the owner
#: added are not in it.
_STAGE = "CREATE TEMPORARY TABLE {stage} ({definitions}, n integer) ON COMMIT DROP"
_COPY_TO_STAGE = "COPY {stage} ({columns}, n) FROM STDIN (FORMAT BINARY)"
#: The rows as parameters, one array for each column.
_LISTED = "unnest({arrays}, %(n)b::integer[]) AS staged ({columns}, n)"
#: The same where a column has arrays itself. Postgres would unnest an array of arrays to its elements, so such a column
#: is sent as the texts of its arrays.
_LISTED_AS_TEXTS = "(SELECT {from_texts}, n FROM unnest({arrays}, %(n)b::integer[]) AS sent ({columns}, n)) AS staged"
#: Returns the numbers of the rows that need no writing: false with those that equal the stored row, true with those
#: that differ from a newer one, and by how many seconds it is newer. The table may have a column `n` of its owner's.
#:
#: Every `n` meets the condition on it. For a table without statistics Postgres estimates that 0.5 % of the rows do, and
#: so finds the keys by the index. Without the condition, or after ANALYZE, it reads the whole of a table of 300,000
#: rows for a batch of 5,000 (10 to 34 us of CPU per row instead of 3), and compiles the statement for large batches.
#: LATERAL with OFFSET 0 has the same effect (4 us), but Citus cannot distribute it.
_LOOK = """
    SELECT differs, array_agg(n), array_agg(late) FILTER (WHERE differs)
    FROM (
        SELECT staged.n, ({stored}) IS DISTINCT FROM ({staged}) AS differs,
               extract(epoch FROM stored.enqueued_at - staged.enqueued_at)::float8 AS late
        FROM {source} JOIN {table} AS stored ON {same_key}
        WHERE staged.n BETWEEN 0 AND 2147483647
          AND (stored.enqueued_at > staged.enqueued_at OR ({stored}) IS NOT DISTINCT FROM ({staged})){window}
    ) AS found
    GROUP BY differs
"""
_COUNT = "SELECT count(*) FROM {source} JOIN {table} AS stored ON {same_key}{window}"
#: For a table with partitions: Postgres then neither plans nor locks those in which no row of the batch can be.
_WINDOW = " AND stored.ts BETWEEN %(earliest)s AND %(latest)s"
#: The conditions on the stored row are checked under its lock, so they hold whatever other writers did since the look.
#: New and changed rows go into one statement, which takes all its locks in key order.
_WRITE = """
    INSERT INTO {table} AS stored ({columns})
    SELECT {stored_as} FROM {source} WHERE {chosen} ORDER BY n
    ON CONFLICT ({key}) DO UPDATE SET {assignments}
    WHERE stored.enqueued_at <= excluded.enqueued_at AND ({stored}) IS DISTINCT FROM ({excluded})
"""
#: Returns the keys of the rows for which a row is there afterwards, new or not: it changes no values of those that are.
#: What it does is undone. A row that is not returned was dropped by a trigger.
_TOUCH = """
    INSERT INTO {table} AS stored ({columns})
    SELECT {stored_as} FROM {source} WHERE n = ANY (%(only)b::integer[]) ORDER BY n
    ON CONFLICT ({key}) DO UPDATE SET enqueued_at = stored.enqueued_at
    RETURNING {stored_key}
"""
_CHOSEN = "%(only)b::integer[] IS NULL OR n = ANY (%(only)b::integer[])"
_WRITTEN = " RETURNING {stored_key}"
#: A stored row once more, a moment later. It is written like a batch, so it needs the same rights.
_COPY_OF_STORED = "(SELECT {later}, 0 AS n FROM {table} AS stored LIMIT 1) AS staged"
#: Returns the numbers of the rows that have a value which its column cannot store, and the place of the first such
#: column among those that need a cast.
_UNFIT = """
    SELECT n, place FROM (SELECT n, CASE {misfits} END AS place FROM {source}) AS checked
    WHERE place IS NOT NULL ORDER BY n
"""
#: The columns that need a cast, by name.
Casts = tuple[tuple[str, Cast], ...]


@dataclass(frozen=True, slots=True)
class Upsert:
    """`look` returns the rows that need no writing; `write` writes those numbered in the parameter `only`, or all.

    `touch` tells which of the rows in `only` no trigger drops. These are for rows that fit: `unfit` returns those that
    do not. It is None where every row does.
    """

    look: sql.Composed
    write: sql.Composed
    touch: sql.Composed
    unfit: sql.Composed | None


@dataclass(frozen=True, slots=True)
class Statements:
    """A dataset's statements."""

    copy: sql.Composed
    stage: sql.Composed
    copy_to_stage: sql.Composed
    #: For rows in the stage.
    staged: Upsert
    #: For rows in parameters, which have these names.
    listed: Upsert
    #: Counts those of the rows in parameters whose keys are stored.
    count_listed: sql.Composed
    parameters: list[str]
    #: In the order of `unfit`.
    casts: Casts


@cache
def types_of(dataset: Dataset) -> Mapping[str, str]:
    """Return the declared type of each column that the writer fills, as COPY names it."""
    return {f.name: f.kind.copy_type for f in fields_of(dataset)} | {ENQUEUED_AT: "timestamptz"}


@cache
def digits_of(dataset: Dataset) -> Mapping[str, tuple[int, int]]:
    """Return precision and scale of each column of exact numbers."""
    return {f.name: f.kind.digits for f in fields_of(dataset) if f.kind.digits is not None}


@cache
def statements_of(dataset: Dataset, casts: Casts = ()) -> Statements:
    """Compose the SQL for a dataset, some of whose columns are stored in other types than the declared ones."""
    parts = parts_of(dataset, casts)
    types = types_of(dataset)

    def upsert(source: sql.Composable) -> Upsert:
        return Upsert(
            look=one_line(_LOOK).format(source=source, **parts),
            write=write_of(dataset, casts, source, sql.SQL(_CHOSEN)) + sql.SQL(_WRITTEN).format(**parts),
            touch=one_line(_TOUCH).format(source=source, **parts),
            unfit=one_line(_UNFIT).format(source=source, **parts) if casts else None,
        )

    listed = sql.SQL(_LISTED_AS_TEXTS if _has_arrays(types) else _LISTED).format(**parts)
    return Statements(
        copy=sql.SQL(_COPY).format(**parts),
        stage=sql.SQL(_STAGE).format(**parts),
        copy_to_stage=sql.SQL(_COPY_TO_STAGE).format(**parts),
        staged=upsert(sql.SQL("{stage} AS staged").format(**parts)),
        listed=upsert(listed),
        count_listed=sql.SQL(_COUNT).format(source=listed, **parts),
        parameters=_parameters(types),
        casts=casts,
    )


def write_of(dataset: Dataset, casts: Casts, source: sql.Composable, chosen: sql.Composable) -> sql.Composed:
    """Compose the statement that writes the rows of `source` for which the condition `chosen` is true."""
    return one_line(_WRITE).format(source=source, chosen=chosen, **parts_of(dataset, casts))


def write_copy_of(dataset: Dataset, casts: Casts) -> sql.Composed:
    """Compose the statement that writes a copy of a stored row, if there is one; it must be rolled back."""
    source = sql.SQL(_COPY_OF_STORED).format(**parts_of(dataset, casts))
    return write_of(dataset, casts, source, sql.SQL("true"))


def one_line(query: str) -> sql.SQL:
    """Return a template without its line breaks: Postgres's log repeats a statement that fails, line by line."""
    return sql.SQL(" ".join(query.split()))


def _has_arrays(types: Mapping[str, str]) -> bool:
    return any(type_.endswith("[]") for type_ in types.values())


def _parameters(types: Mapping[str, str]) -> list[str]:
    return [f"c{place}" for place in range(len(types))]


@cache
def parts_of(dataset: Dataset, casts: Casts = ()) -> Mapping[str, sql.Composable]:
    """Compose what statements about the dataset consist of: names, types, conditions."""
    cast = dict(casts)

    def names(columns: Sequence[str], alias: str = "") -> sql.Composed:
        qualify = (alias,) if alias else ()
        return sql.SQL(", ").join(sql.Identifier(*qualify, name) for name in columns)

    def sent(name: str) -> sql.Composable:
        """Return the value of a staged row as the column stores it."""
        value = sql.Identifier("staged", name)
        return cast[name].store(value) if name in cast else value

    def judged(columns: Sequence[str], alias: str) -> sql.Composed:
        """Return that by which rows are compared, of rows of the table or of staged ones."""
        whole = [sent(name) if alias == "staged" else sql.Identifier(alias, name) for name in columns]
        return sql.SQL(", ").join(
            cast[name].judged(value) if name in cast else value for name, value in zip(columns, whole, strict=True)
        )

    def restored(name: str) -> sql.Composable:
        value = sql.Identifier("stored", name)
        return cast[name].restored(value) if name in cast else value

    values = dataset.values
    types = types_of(dataset)
    moment = next(name for name in dataset.key if types[name] == "timestamptz")
    # A type with fewer digits rounds a microsecond away.
    later = sql.SQL(" + interval '1 second'" if moment in cast else " + interval '1 microsecond'")
    return {
        "table": sql.Identifier(dataset.table.name),
        "stage": sql.Identifier(f"stage_{dataset.table.name}"),
        "refused": sql.Identifier(f"refused_{dataset.table.name}"),
        "columns": names(list(types)),
        "later": sql.SQL(", ").join(
            sql.SQL("{}{} AS {}").format(restored(name), later if name == moment else sql.SQL(""), sql.Identifier(name))
            for name in types
        ),
        # Without collations: a comparison then uses that of the stored column.
        "definitions": sql.SQL(", ").join(sql.Identifier(name) + sql.SQL(f" {type_}") for name, type_ in types.items()),
        "arrays": sql.SQL(", ").join(
            sql.SQL(f"%({name})b::{'text' if type_.endswith('[]') else type_}[]")
            for name, type_ in zip(_parameters(types), types.values(), strict=True)
        ),
        "from_texts": sql.SQL(", ").join(
            sql.SQL(f"{{0}}::{type_} AS {{0}}" if type_.endswith("[]") else "{0}").format(sql.Identifier(name))
            for name, type_ in types.items()
        ),
        "key": names(dataset.key),
        "window": sql.SQL("" if "ts" in cast or span_of(dataset) is None else _WINDOW),
        "same_key": sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("stored", name), sent(name)) for name in dataset.key
        ),
        "stored_as": sql.SQL(", ").join(map(sent, types)),
        "stored": judged(values, "stored"),
        "stored_key": sql.SQL(", ").join(map(restored, dataset.key)),
        "staged": judged(values, "staged"),
        "excluded": judged(values, "excluded"),
        "assignments": sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in (*values, ENQUEUED_AT)
        ),
        "misfits": sql.SQL(" ").join(
            sql.SQL("WHEN NOT {} THEN {}").format(each.fits(sql.Identifier("staged", name)), sql.Literal(place))
            for place, (name, each) in enumerate(casts)
        ),
    }
