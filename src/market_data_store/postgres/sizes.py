"""How many rows tables have, as Postgres estimates it, without reading them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

#: With their partitions, or with what inherits from them. The statistics are of a second ago; what a crash or a restore
#: has emptied is 0 until rows are written, and then VACUUM's estimate is the larger one.
_ROWS = """
    WITH RECURSIVE parts (name, oid) AS (
        SELECT name, to_regclass(quote_ident(name))::oid FROM unnest(%s::text[]) AS given (name)
        UNION ALL
        SELECT name, inhrelid FROM parts JOIN pg_inherits ON inhparent = parts.oid
    )
    SELECT name, sum(greatest(pg_stat_get_live_tuples(parts.oid), 0))::bigint, sum(greatest(reltuples, 0))::bigint
    FROM parts JOIN pg_class ON pg_class.oid = parts.oid
    WHERE relkind IN ('r', 'p') GROUP BY name
"""


def estimated_rows(connection: psycopg.Connection[Any], tables: Sequence[str]) -> dict[str, int]:
    """Return the rows of each of these tables that exists, by its name."""
    return {name: live or estimate for name, live, estimate in connection.execute(_ROWS, [list(tables)]).fetchall()}
