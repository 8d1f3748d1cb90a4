"""Reads the table of dead letters: lists, shows, counts and purges what can never be written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from market_data_store.dead_letters.keeping import stored_id
from market_data_store.dead_letters.selecting import EVERY, Where, selection

#: Number of whole letters read at once; a body may have 16 MiB.
_STREAMED_AT_ONCE = 20

_REASONS = "SELECT task_id, position, reason FROM dead_letters WHERE task_id = ANY(%s) ORDER BY task_id, position"
_REJECTIONS = """
    SELECT task_id, position, reason, pattern FROM dead_letters WHERE task_id = ANY(%s) ORDER BY task_id, position
"""
_LOCATE = """
    UPDATE dead_letters AS letter SET job = %s, file = %s, line = found.line
    FROM unnest(%s::text[], %s::int[], %s::bigint[]) AS found (task_id, position, line)
    WHERE letter.task_id = found.task_id AND letter.position = found.position
"""
_LISTED = """
    SELECT id, created_at, refused_at, task_id, position, dataset, reason, pattern, sqlstate, enqueued_at,
           body_bytes, encode(body_sha256, 'hex') AS body_sha256, content_type, content_encoding, compression,
           job, file, line
"""
_PAYLOAD = "row::text, defaults::text, body"
_NEXT = "AND id > %(after)s ORDER BY id LIMIT %(limit)s"
_PAGE = sql.SQL(f"{_LISTED} {{selected}} {_NEXT}")
_WHOLE = sql.SQL(f"{_LISTED}, {_PAYLOAD} {{selected}} {_NEXT}")
_COUNT = sql.SQL("SELECT count(*) {selected}")
_COUNT_PARTIAL = sql.SQL("SELECT count(*) {selected} AND row IS NULL AND (body IS NULL OR length(body) < body_bytes)")
#: By the database's clock, which also sets `refused_at`.
_NOW = "SELECT clock_timestamp()"
#: Ids are given in the order in which letters are kept.
_OLDEST = "SELECT created_at FROM dead_letters ORDER BY id LIMIT 1"
_PURGE = sql.SQL("DELETE {selected}")
_OUTCOME = """
    SELECT count(*) FILTER (WHERE refused_at < %s), count(*) FILTER (WHERE refused_at >= %s)
    FROM dead_letters WHERE id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter in the table. In a listing, what was sent (`row`, `defaults`, `body`) is None."""

    id: int
    created_at: datetime
    #: When a replay was last refused; without a replay the same as `created_at`.
    refused_at: datetime
    #: The message's task id; its hash if it has more than 255 bytes.
    task_id: str
    #: The row's index in its message.
    position: int
    dataset: str | None
    reason: str
    #: The reason with … for each value; None for a letter of version 0.4 until it is refused again.
    pattern: str | None
    sqlstate: str | None
    enqueued_at: datetime
    #: Length and SHA-256 (hexadecimal) of a message's whole body, and how the message's headers describe it.
    body_bytes: int | None = None
    body_sha256: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    #: How `body` is compressed; None if it is not.
    compression: str | None = None
    #: Where a load found the row: the id of the load's run, the file and the line.
    job: int | None = None
    file: str | None = None
    line: int | None = None
    #: JSON text, as sent.
    row: str | None = None
    defaults: str | None = None
    #: The body of a message that is kept as a whole, or its beginning if it was longer than messages may be.
    body: bytes | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the letter holds all that a replay needs, if it was read with what was sent."""
        return self.row is not None or (self.body is not None and len(self.body) >= (self.body_bytes or 0))


def reasons(connection: psycopg.Connection[Any], task_ids: Sequence[str]) -> list[tuple[str, int, str]]:
    """Return the letters of these tasks as (task id, the row's position in its message, reason)."""
    given = {stored_id(task_id): task_id for task_id in task_ids}
    found = connection.execute(_REASONS, [list(given)]).fetchall()
    return [(given[stored], position, reason) for stored, position, reason in found]


def rejections(connection: psycopg.Connection[Any], task_ids: Sequence[str]) -> list[tuple[str, int, str, str | None]]:
    """Return the letters of these tasks as (task id, the row's position in its message, reason, pattern)."""
    given = {stored_id(task_id): task_id for task_id in task_ids}
    found = connection.execute(_REJECTIONS, [list(given)]).fetchall()
    return [(given[stored], *others) for stored, *others in found]


def locate(
    connection: psycopg.Connection[Any],
    letters: Sequence[tuple[str, int, int | None]],
    *,
    job: int | None,
    file: str,
) -> None:
    """Write into letters, given as (task id, position, line), where a load found their rows."""
    columns = [list(column) for column in zip(*((stored_id(t), p, line) for t, p, line in letters), strict=True)]
    connection.execute(_LOCATE, [job, file, *columns])


def count(
    connection: psycopg.Connection[Any],
    *,
    ids: Sequence[int] | None = None,
    dataset: str | None = None,
    where: Where = EVERY,
    only_partial: bool = False,
) -> int:
    """Count letters: those with these ids, those of one dataset, or all; or of them those that no replay sends."""
    query = _COUNT_PARTIAL if only_partial else _COUNT
    return int(connection.execute(*selection(query, ids, dataset, where)).fetchall()[0][0])


def now(connection: psycopg.Connection[Any]) -> datetime:
    """Return the time of the database's clock, which also sets `refused_at`."""
    ((found,),) = connection.execute(_NOW).fetchall()
    assert isinstance(found, datetime)  # noqa: S101
    return found


def oldest(connection: psycopg.Connection[Any]) -> datetime | None:
    """Return when the oldest letter was kept; None without letters."""
    rows = connection.execute(_OLDEST).fetchall()
    return rows[0][0] if rows else None


def page(
    connection: psycopg.Connection[Any],
    *,
    dataset: str | None = None,
    where: Where = EVERY,
    after: int = 0,
    limit: int = 100,
) -> list[Letter]:
    """Return at most `limit` letters with ids above `after`, by id, of one dataset or of all, without what was sent."""
    return _letters(connection, _PAGE, None, dataset, where, after, limit)


def get(connection: psycopg.Connection[Any], id: int) -> Letter | None:  # the column's name
    """Return the letter with what was sent; None if there is none."""
    return next(iter(_letters(connection, _WHOLE, [id], None, EVERY, 0, 1)), None)


def stream(
    connection: psycopg.Connection[Any],
    *,
    ids: Sequence[int] | None = None,
    dataset: str | None = None,
    where: Where = EVERY,
) -> Iterator[Letter]:
    """Yield the letters that exist now, by id, with what was sent, reading a few at a time.

    `ids` None selects all letters of the dataset, or all.
    """
    ((last,),) = connection.execute("SELECT coalesce(max(id), 0) FROM dead_letters").fetchall()
    after = 0
    while letters := _letters(connection, _WHOLE, ids, dataset, where, after, _STREAMED_AT_ONCE):
        for letter in letters:
            if letter.id > last:
                return
            yield letter
            after = letter.id


def purge(
    connection: psycopg.Connection[Any], *, ids: Sequence[int] | None, dataset: str | None, where: Where = EVERY
) -> int:
    """Delete letters for good; returns their number. `ids` None selects all letters of the dataset, or all."""
    return connection.execute(*selection(_PURGE, ids, dataset, where)).rowcount


def outcome(connection: psycopg.Connection[Any], ids: Sequence[int], since: datetime) -> tuple[int, int]:
    """Return how many of these letters are as they were at `since`, and how many have been refused since then."""
    ((waiting, refused),) = connection.execute(_OUTCOME, [since, since, list(ids)]).fetchall()
    return waiting, refused


def _letters(
    connection: psycopg.Connection[Any],
    query: sql.SQL,
    ids: Sequence[int] | None,
    dataset: str | None,
    where: Where,
    after: int,
    limit: int,
) -> list[Letter]:
    with connection.cursor(row_factory=class_row(Letter)) as cursor:
        selected, parameters = selection(query, ids, dataset, where)
        return cursor.execute(selected, {**parameters, "after": after, "limit": limit}).fetchall()
