"""How rows get into a COPY."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql


def copy_rows(
    cursor: psycopg.Cursor[Any], statement: sql.Composed, types: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> int:
    """Copy rows in binary, each column as its type of `types`; returns how many rows Postgres kept."""
    with cursor.copy(statement) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
    return cursor.rowcount
