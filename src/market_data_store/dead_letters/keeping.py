"""Puts letters into the table of dead letters, and takes those out whose rows are written.

A letter holds its reason and everything that a replay needs: a row or the body of a message, up to the limit of
messages, unless `quota` says that only the reason may be kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import psycopg

from market_data_store.config import settings
from market_data_store.dead_letters import quota
from market_data_store.wire.hashes import hash63
from market_data_store.wire.moments import EPOCH, UNIX_TO_EPOCH_US
from market_data_store.wire.text import row_text

#: What identifies a letter: stored task id, position and content hash.
Origin = tuple[str, int, int]
_Json = Callable[[str | None], str | None]
#: Maximum length of a task id, in bytes.
_MAX_TASK_ID_BYTES = 255
#: Maximum length of a content type, an encoding and a compression, in bytes: a replay sends them, and AMQP allows no
#: longer ones.
_MAX_PROPERTY_BYTES = 255
#: Maximum length of a reason and of a pattern, in characters: a trigger's message may be of any length.
_MAX_REASON, _MAX_PATTERN = 500, 300
#: The most bytes of a body, whatever the limit of messages is: Postgres takes a value of 1 GB, and COPY's text twice
#: the bytes.
_MAX_BODY_BYTES = 256 * 1024 * 1024
#: The last moment that a letter can have, in microseconds since 2000: the end of the year 9999.
_LAST_US = (datetime.max.replace(tzinfo=EPOCH.tzinfo) - EPOCH) // timedelta(microseconds=1)

_COLUMNS = """
    task_id, position, content_hash, dataset, reason, pattern, sqlstate, row, defaults,
    body, body_bytes, body_sha256, content_type, content_encoding, compression, enqueued_at
"""
_COPY = f"COPY dead_letters ({_COLUMNS}) FROM STDIN"
_KEEP = f"""
    INSERT INTO dead_letters ({_COLUMNS})
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s::json, %s::json, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (task_id, position, content_hash) DO NOTHING
"""  # noqa: S608  # no value comes from outside
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


def keep(connection: psycopg.Connection[Any], letters: Sequence[DeadLetter]) -> list[int | None]:
    """Store letters in the open transaction, except those that exist; returns their ids (None: purged meanwhile)."""
    again = [letter for letter in letters if letter.id is not None]
    renewed = {id_ for (id_,) in connection.execute(_RENEW, _renewals(again))} if again else set()
    # A letter that is no longer in the table (purged, or from another database) is stored as a new one.
    fresh = [(origin_of(letter), letter) for letter in letters if letter.id not in renewed]
    ids: list[int | None] = []
    if fresh:
        _insert(connection, dict(fresh))
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
        (letter.id, stored_id(letter.task_id), _reason(letter), _pattern(letter), letter.sqlstate) for letter in letters
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _insert(connection: psycopg.Connection[Any], letters: Mapping[Origin, DeadLetter]) -> None:
    has_room = quota.has_room(connection, sum(map(size_of, letters.values())))
    # In the order of the index, so that two workers with the same messages do not deadlock.
    in_order = sorted(letters.items(), key=lambda item: item[0])
    try:
        _copy(connection, [origin + _parameters(letter, has_room, lambda text: text) for origin, letter in in_order])
    except psycopg.Error as error:
        if (error.sqlstate or "")[:2] not in ("22", "54"):
            raise
        # Text that Postgres does not accept as JSON (for example nested too deeply) is kept as a JSON string.
        _copy(connection, [origin + _parameters(letter, has_room, _quoted) for origin, letter in in_order])


def _copy(connection: psycopg.Connection[Any], rows: Sequence[tuple[Any, ...]]) -> None:
    """Copy new letters; if one of them exists, insert the others."""
    with connection.cursor() as cursor:
        try:
            with connection.transaction(), cursor.copy(_COPY) as copy:
                for row in rows:
                    copy.write_row(row)
        except psycopg.errors.UniqueViolation:
            with connection.transaction():
                cursor.executemany(_KEEP, rows)


def _parameters(letter: DeadLetter, has_room: bool, json_of: _Json) -> tuple[Any, ...]:
    body = letter.body
    return (
        letter.dataset,
        _reason(letter),
        _pattern(letter),
        letter.sqlstate,
        json_of(letter.row) if has_room else None,
        json_of(_defaults(letter)) if has_room else None,
        body[: min(settings().max_message_bytes, _MAX_BODY_BYTES)] if has_room and body is not None else None,
        None if body is None else len(body),
        None if body is None else sha256(body).digest(),
        _property(letter.content_type),
        _property(letter.content_encoding),
        _property(letter.compression),
        # Whatever a message says: nothing was enqueued before 1970.
        EPOCH + timedelta(microseconds=min(max(letter.enqueued_at, -UNIX_TO_EPOCH_US), _LAST_US)),
    )


def _quoted(text: str | None) -> str | None:
    return text and json.dumps(text)


def size_of(letter: DeadLetter) -> int:
    """Return about how many bytes of what was sent a letter holds."""
    return len(letter.row or "") + len(_defaults(letter) or "") + len(letter.body or b"")


def origin_of(letter: DeadLetter) -> Origin:
    """Return what identifies a letter."""
    content = json.dumps((letter.dataset, letter.row, _defaults(letter))).encode() + (letter.body or b"")
    return stored_id(letter.task_id), letter.position, hash63(content)


def _defaults(letter: DeadLetter) -> str | None:
    return row_text(dict(letter.defaults)) if letter.defaults else None


def _reason(letter: DeadLetter) -> str:
    return _shortened(letter.reason, _MAX_REASON)


def _pattern(letter: DeadLetter) -> str:
    return _shortened(letter.pattern, _MAX_PATTERN)


def _shortened(value: str, limit: int) -> str:
    return _text(value[:limit])[:limit]


def _property(value: str | None) -> str | None:
    return None if value is None else _text(value).encode()[:_MAX_PROPERTY_BYTES].decode("utf-8", "ignore")


def stored_id(task_id: str) -> str:
    """Return a task id as it is stored, in at most 255 bytes."""
    # Any client sets Celery's headers: an id may hold characters that Postgres rejects, or be too long for its index.
    encoded = _text(task_id).encode()
    if len(encoded) <= _MAX_TASK_ID_BYTES:
        return encoded.decode()
    return f"sha256:{sha256(encoded).hexdigest()}"


def _text(value: str) -> str:
    """Escape what Postgres does not accept in a text: NUL, and halves of surrogate pairs."""
    return value.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
