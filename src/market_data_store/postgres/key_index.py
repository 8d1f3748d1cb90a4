"""The index of a dataset's key: whether statements can go by it, and how they are made to.

The key names a series before the time: provider, symbol and interval of a bar. By the index, Postgres finds one series
after the other in a few look-ups, and the oldest row of each, however large the table is.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from market_data_store.datasets import Dataset

#: For each key without its time, from a place in the key's order on, that and the first time: `keys`.
KEYS = """
    WITH RECURSIVE keys AS (
        (SELECT {names}, ts AS first FROM {table} AS each {after} ORDER BY {names_of_each}, each.ts LIMIT 1)
        UNION ALL
        SELECT next.* FROM keys CROSS JOIN LATERAL (
            SELECT {names_of_each}, ts FROM {table} AS each
            WHERE ({names_of_each}, each.ts) > ({names_of_keys}, 'infinity')
            ORDER BY {names_of_each}, each.ts LIMIT 1
        ) AS next
    )
"""
#: Whether the key's index, in the key's order, can be used.
_HAS_INDEX = """
    SELECT to_regclass('pg_dist_partition') IS NULL AND EXISTS (
        SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
        WHERE indrelid = to_regclass({name}) AND indisvalid AND indpred IS NULL AND amname = 'btree'
          AND 0 = ALL ((indoption::int2[])[0:{length} - 1])
          AND {names}::text[] = ARRAY(
              SELECT attname::text FROM unnest((indkey::int2[])[0:{length} - 1]) WITH ORDINALITY AS part (attnum, place)
              JOIN pg_attribute USING (attnum) WHERE attrelid = indrelid ORDER BY place
          )
    )
"""
#: A plan that reads the whole table is never the better one where this is used; Postgres may think so of a table that
#: it has no statistics of.
BY_INDEX = "SET LOCAL enable_seqscan = off"


def prefix(dataset: Dataset) -> list[str]:
    """Return the key's columns in front of the time."""
    return list(dataset.key[: dataset.key.index("ts")])


def has_index(connection: psycopg.Connection[Any], dataset: Dataset) -> bool:
    """Whether there is an index that begins with the key's columns up to the time; never on Citus."""
    key = [*prefix(dataset), "ts"]
    table = sql.Literal(sql.Identifier(dataset.table.name).as_string(None))
    query = sql.SQL(_HAS_INDEX).format(name=table, names=sql.Literal(key), length=sql.Literal(len(key)))
    ((found,),) = connection.execute(query).fetchall()
    return bool(found)
