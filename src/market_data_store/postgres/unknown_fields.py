"""What was seen of fields that datasets do not know, in Postgres: it survives restarts, and migrations read it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from market_data_store.wire.seen import Seen, add_seen

#: Nobody waits for these counts: a locked table ends the try, and a commit waits for no disk.
_PATIENCE = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '5s'; SET LOCAL synchronous_commit = off"
_NAMES = "SELECT dataset, name FROM unknown_fields WHERE dataset = ANY(%s)"
#: In the order of the key, so that two processes do not deadlock.
_ADD = """
    INSERT INTO unknown_fields AS stored (dataset, name, kinds, rows, first_at, last_at)
    SELECT dataset, name, string_to_array(kinds, ','), rows, now(), now()
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) AS seen (dataset, name, kinds, rows)
    ORDER BY dataset, name
    ON CONFLICT (dataset, name) DO UPDATE SET
        kinds = ARRAY(SELECT DISTINCT unnest(stored.kinds || excluded.kinds) ORDER BY 1),
        rows = stored.rows + excluded.rows,
        last_at = greatest(stored.last_at, excluded.last_at)
"""
_LIST = """
    SELECT seen.dataset, seen.name, kinds, rows, first_at, last_at, added.name
    FROM unknown_fields AS seen
    LEFT JOIN added_columns AS added ON added.dataset = seen.dataset AND added.field = seen.name
    WHERE %(dataset)s::text IS NULL OR seen.dataset = %(dataset)s
    ORDER BY last_at DESC, seen.dataset, seen.name LIMIT %(limit)s
"""


class UnknownField(NamedTuple):
    """What was seen of one name that a dataset does not know."""

    dataset: str
    #: `seen.OTHERS` stands for those that are not counted by themselves.
    name: str
    kinds: list[str]
    #: In how many rows it was seen; a row that is delivered again counts again.
    rows: int
    first_at: datetime
    last_at: datetime
    #: The column that a migration added for it.
    column: str | None


def add(connection: psycopg.Connection[Any], seen: Mapping[str, Mapping[str, Seen]]) -> None:
    """Add what was seen, by dataset and name, in one transaction; raises psycopg's errors.

    Of a dataset some `MOST_NAMES` names are counted by themselves.
    """
    with connection.transaction():
        connection.execute(_PATIENCE)
        counted: dict[str, dict[str, Seen]] = {dataset: {} for dataset in seen}
        for dataset, name in connection.execute(_NAMES, [[*seen]]).fetchall():
            counted[dataset][name] = Seen()
        for dataset, fields in seen.items():
            add_seen(counted[dataset], fields)
        found = [
            (dataset, name, ",".join(sorted(each.kinds)), each.rows)
            for dataset, fields in counted.items()
            for name, each in fields.items()
            if each.rows
        ]
        if found:
            connection.execute(_ADD, [list(column) for column in zip(*found, strict=True)])


def listed(
    connection: psycopg.Connection[Any], dataset: str | None = None, *, limit: int | None = None
) -> list[UnknownField]:
    """Return what was seen, of one dataset or all, the newest first; raises psycopg's errors."""
    return [UnknownField(*row) for row in connection.execute(_LIST, {"dataset": dataset, "limit": limit}).fetchall()]
