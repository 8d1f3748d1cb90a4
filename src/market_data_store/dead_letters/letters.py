"""The table of dead letters: keep, settle, list and purge rows and messages that can never be written.

A letter holds its reason and everything that a replay needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from market_data_store.wire.hashes import hash63
from market_data_store.wire.moments import UNIX_TO_EPOCH_US
from market_data_store.wire.text import row_text

#: What identifies a letter: stored task id, position and content hash.
Origin = tuple[str, int, int]
_Json = Callable[[str | None], str | None]
#: Maximum length of a task id, in characters.
_MAX_TASK_ID = 255
#: Maximum length of a content type, an encoding and a compression, in bytes: a replay sends them, and AMQP allows no
#: longer ones.
_MAX_PROPERTY_BYTES = 255
#: Maximum length of a pattern, in characters.
_MAX_PATTERN = 300
#: Number of whole letters read at once; a body may have 16 MiB.
_STREAMED_AT_ONCE = 20

_KEEP = """
    INSERT INTO dead_letters
        (task_id, position, content_hash, dataset, reason, pattern, sqlstate, row, defaults,
         body, body_bytes, body_sha256, content_type, content_encoding, compression, enqueued_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s::json, %s::json, %s, %s, %s, %s, %s, %s,
            timestamptz '2000-01-01Z' + %s * interval '1 microsecond')
    ON CONFLICT (task_id, position, content_hash) DO NOTHING
"""
_IDS = """
    SELECT letter.id
    FROM unnest(%s::text[], %s::int[], %s::bigint[]) WITH ORDINALITY AS kept (task_id, position, content_hash, place)
    LEFT JOIN dead_letters AS letter USING (task_id, position, content_hash)
    ORDER BY place
"""
_RENEW = """
    UPDATE dead_letters AS letter
    SET reason = refused.reason, pattern = refused.pattern, sqlstate = refused.sqlstate, refused_at = now()
    FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[])
        AS refused (id, task_id, reason, pattern, sqlstate)
    WHERE letter.id = refused.id AND letter.task_id = refused.task_id
    RETURNING letter.id
"""
_SETTLE = """
    DELETE FROM dead_letters AS letter USING unnest(%s::bigint[], %s::text[]) AS written (id, task_id)
    WHERE letter.id = written.id AND letter.task_id = written.task_id
"""
_REASONS = "SELECT task_id, position, reason FROM dead_letters WHERE task_id = ANY(%s) ORDER BY task_id, position"
_SELECTED = sql.SQL("""
    FROM dead_letters
    WHERE (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s)) AND (%(dataset)s::text IS NULL OR dataset = %(dataset)s)
""")
_LISTED = """
    SELECT id, created_at, refused_at, task_id, position, dataset, reason, pattern, sqlstate, enqueued_at,
           body_bytes, encode(body_sha256, 'hex') AS body_sha256, content_type, content_encoding, compression,
           job, file, line
"""
_PAYLOAD = "row::text, defaults::text, body"
_NEXT = "AND id > %(after)s ORDER BY id LIMIT %(limit)s"
_PAGE = sql.SQL(f"{_LISTED} {{}} {_NEXT}").format(_SELECTED)
_WHOLE = sql.SQL(f"{_LISTED}, {_PAYLOAD} {{}} {_NEXT}").format(_SELECTED)
_COUNT = sql.SQL("SELECT count(*) {}").format(_SELECTED)
_PURGE = sql.SQL("DELETE {}").format(_SELECTED)
_OUTCOME = """
    SELECT count(*) FILTER (WHERE refused_at < %s), count(*) FILTER (WHERE refused_at >= %s)
    FROM dead_letters WHERE id = ANY(%s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A letter to keep: a row (`row`, as JSON text), or a message that is unusable as a whole (`body`)."""

    task_id: str
    #: The row's index in its message.
    position: int
    #: Names the field, the value and the remedy.
    reason: str
    #: The reason with … for each value; letters are counted by it.
    pattern: str
    #: Microseconds since 2000-01-01 UTC.
    enqueued_at: int
    dataset: str | None = None
    #: Postgres's code, if Postgres refused the row.
    sqlstate: str | None = None
    row: str | None = None
    defaults: Mapping[str, Any] | None = None
    body: bytes | None = None
    #: As the message's headers describe its body.
    content_type: str | None = None
    content_encoding: str | None = None
    #: How `body` is compressed.
    compression: str | None = None
    #: The id of the letter that was replayed and refused again: that letter stays, with this reason.
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter in the table. In a listing, what was sent (`row`, `defaults`, `body`) is None."""

    id: int
    created_at: datetime
    #: When a replay was last refused; without a replay the same as `created_at`.
    refused_at: datetime
    #: The message's task id; its hash if it has more than 255 characters.
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
    #: The body of a message that is unusable as a whole.
    body: bytes | None = None


def keep(connection: psycopg.Connection[Any], letters: Sequence[DeadLetter]) -> list[int | None]:
    """Store letters in the open transaction, except those that exist; returns their ids (None: purged meanwhile)."""
    again = [letter for letter in letters if letter.id is not None]
    renewed = {id_ for (id_,) in connection.execute(_RENEW, _renewals(again))} if again else set()
    # A letter that is no longer in the table (purged, or from another database) is stored as a new one.
    fresh = [(origin_of(letter), letter) for letter in letters if letter.id not in renewed]
    ids: list[int | None] = []
    if fresh:
        try:
            _insert(connection, fresh, lambda text: text)
        except psycopg.Error as error:
            if (error.sqlstate or "")[:2] not in ("22", "54"):
                raise
            # Text that Postgres does not accept as JSON (for example nested too deeply) is kept as a JSON string.
            _insert(connection, fresh, lambda text: text and json.dumps(text))
        origins = [list(column) for column in zip(*(origin for origin, _ in fresh), strict=True)]
        ids = [id_ for (id_,) in connection.execute(_IDS, origins).fetchall()]
    kept = iter(ids)
    return [letter.id if letter.id in renewed else next(kept) for letter in letters]


def settle(connection: psycopg.Connection[Any], letters: Sequence[tuple[int, str]]) -> None:
    """Delete letters whose rows are now written; each is given as its id and the task id that it must have."""
    if letters:
        connection.execute(_SETTLE, [[id_ for id_, _ in letters], [stored_id(task_id) for _, task_id in letters]])


def _renewals(letters: Sequence[DeadLetter]) -> list[list[Any]]:
    rows = [
        (letter.id, stored_id(letter.task_id), _text(letter.reason), _pattern(letter), letter.sqlstate)
        for letter in letters
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _insert(connection: psycopg.Connection[Any], letters: Sequence[tuple[Origin, DeadLetter]], json_of: _Json) -> None:
    # In the order of the index, so that two workers with the same messages do not deadlock.
    in_order = sorted(letters, key=itemgetter(0))
    parameters = [origin + _parameters(letter, json_of) for origin, letter in in_order]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_KEEP, parameters)


def _parameters(letter: DeadLetter, json_of: _Json) -> tuple[Any, ...]:
    return (
        letter.dataset,
        _text(letter.reason),
        _pattern(letter),
        letter.sqlstate,
        json_of(letter.row),
        json_of(_defaults(letter)),
        letter.body,
        None if letter.body is None else len(letter.body),
        None if letter.body is None else sha256(letter.body).digest(),
        _property(letter.content_type),
        _property(letter.content_encoding),
        _property(letter.compression),
        max(letter.enqueued_at, -UNIX_TO_EPOCH_US),  # nothing was enqueued before 1970
    )


def origin_of(letter: DeadLetter) -> Origin:
    """Return what identifies a letter."""
    content = json.dumps((letter.dataset, letter.row, _defaults(letter))).encode() + (letter.body or b"")
    return stored_id(letter.task_id), letter.position, hash63(content)


def _defaults(letter: DeadLetter) -> str | None:
    return row_text(dict(letter.defaults)) if letter.defaults else None


def _pattern(letter: DeadLetter) -> str:
    return _text(letter.pattern)[:_MAX_PATTERN]


def _property(value: str | None) -> str | None:
    return None if value is None else _text(value).encode()[:_MAX_PROPERTY_BYTES].decode("utf-8", "ignore")


def stored_id(task_id: str) -> str:
    """Return a task id as it is stored, in at most 255 characters."""
    # Any client sets Celery's headers: an id may hold characters that Postgres rejects, or be too long for its index.
    task_id = _text(task_id)
    return task_id if len(task_id) <= _MAX_TASK_ID else f"sha256:{sha256(task_id.encode()).hexdigest()}"


def _text(value: str) -> str:
    """Escape what Postgres does not accept in a text: NUL, and halves of surrogate pairs."""
    return value.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def reasons(connection: psycopg.Connection[Any], task_ids: Sequence[str]) -> list[tuple[str, int, str]]:
    """Return the letters of these tasks as (task id, the row's position in its message, reason)."""
    given = {stored_id(task_id): task_id for task_id in task_ids}
    found = connection.execute(_REASONS, [list(given)]).fetchall()
    return [(given[stored], position, reason) for stored, position, reason in found]


def count(connection: psycopg.Connection[Any], *, ids: Sequence[int] | None = None, dataset: str | None = None) -> int:
    """Count letters: those with these ids, those of one dataset, or all."""
    return int(connection.execute(_COUNT, _selection(ids, dataset)).fetchall()[0][0])


def page(
    connection: psycopg.Connection[Any], *, dataset: str | None = None, after: int = 0, limit: int = 100
) -> list[Letter]:
    """Return at most `limit` letters with ids above `after`, by id, of one dataset or of all, without what was sent."""
    return _letters(connection, _PAGE, None, dataset, after, limit)


def get(connection: psycopg.Connection[Any], id: int) -> Letter | None:  # the column's name
    """Return the letter with what was sent; None if there is none."""
    return next(iter(_letters(connection, _WHOLE, [id], None, 0, 1)), None)


def stream(
    connection: psycopg.Connection[Any], *, ids: Sequence[int] | None = None, dataset: str | None = None
) -> Iterator[Letter]:
    """Yield the letters that exist now, by id, with what was sent, reading a few at a time.

    `ids` None selects all letters of the dataset, or all.
    """
    ((last,),) = connection.execute("SELECT coalesce(max(id), 0) FROM dead_letters").fetchall()
    after = 0
    while letters := _letters(connection, _WHOLE, ids, dataset, after, _STREAMED_AT_ONCE):
        for letter in letters:
            if letter.id > last:
                return
            yield letter
            after = letter.id


def purge(connection: psycopg.Connection[Any], *, ids: Sequence[int] | None, dataset: str | None) -> int:
    """Delete letters for good; returns their number. `ids` None selects all letters of the dataset, or all."""
    return connection.execute(_PURGE, _selection(ids, dataset)).rowcount


def outcome(connection: psycopg.Connection[Any], ids: Sequence[int], since: datetime) -> tuple[int, int]:
    """Return how many of these letters are as they were at `since`, and how many have been refused since then."""
    ((waiting, refused),) = connection.execute(_OUTCOME, [since, since, list(ids)]).fetchall()
    return waiting, refused


def _letters(
    connection: psycopg.Connection[Any],
    query: sql.Composed,
    ids: Sequence[int] | None,
    dataset: str | None,
    after: int,
    limit: int,
) -> list[Letter]:
    with connection.cursor(row_factory=class_row(Letter)) as cursor:
        return cursor.execute(query, {**_selection(ids, dataset), "after": after, "limit": limit}).fetchall()


def _selection(ids: Sequence[int] | None, dataset: str | None) -> dict[str, Any]:
    return {"ids": None if ids is None else list(ids), "dataset": dataset}
