"""Replays dead letters: sends them through the task `store.write` again, after their cause has been fixed.

They go by the lane of history, so that many letters delay no live row.

A letter leaves the table only when its row is written: the message names the letter in a header, signed by `signing`,
and the commit that writes the row deletes the letter (`postgres.writer`). If the row is refused again, the letter
stays, with the new reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec
import psycopg
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.utils.uuid import uuid

from market_data_store import dead_letters
from market_data_store.connections.names import process_name
from market_data_store.coordinator.reasons import reason_of
from market_data_store.dead_letters import EVERY, Letter, Where, signing
from market_data_store.errors import BrokerUnavailable
from market_data_store.protocol import (
    ARROW,
    BACKFILL_QUEUE,
    ENQUEUED_AT_HEADER,
    JSON,
    REPLAYS_HEADER,
    SERIALIZER,
    TASK,
    Replayed,
    is_arrow,
)
from market_data_store.tracing import switch
from market_data_store.transport.declaring import declare_if_permitted

#: The limits of a producer's messages, see `producer.client`.
_MAX_ROWS = 500
_MAX_BYTES = 1024 * 1024

#: Corrects a letter.
Change = Callable[[Letter], Letter | None]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was sent, and the letters in it."""

    task_id: str
    ids: tuple[int, ...]
    #: The letter held a message, not a row. Each of its rows that is refused gets its own letter, with this task id.
    whole: bool


@dataclass(frozen=True, slots=True)
class Portion:
    """Letters that were sent together, by id."""

    ids: tuple[int, ...]
    #: How many letters among them were not sent, because they could not be corrected.
    uncorrected: int
    #: Whether no selected letter comes after them.
    is_last: bool


def replay(
    app: Celery,
    connection: psycopg.Connection[Any],
    *,
    ids: Sequence[int] | None = None,
    dataset: str | None = None,
) -> int:
    """Send letters again; returns how many were sent. `ids` None selects all letters of the dataset, or all.

    After `BrokerUnavailable` every letter is still in the table, and it is safe to replay all of them again.
    """
    return len(portion(app, connection, ids=ids, dataset=dataset).ids)


def portion(
    app: Celery,
    connection: psycopg.Connection[Any],
    *,
    limit: int | None = None,
    ids: Sequence[int] | None = None,
    dataset: str | None = None,
    where: Where = EVERY,
    change: Change | None = None,
) -> Portion:
    """Send letters again as `replay` does: all, or about `limit`, up to the end of a message.

    `change` is that of `messages`. The next portion comes above the last id.
    """
    left: list[int] = []
    sent: list[int] = []

    def noted(letter: Letter) -> Letter | None:
        assert change is not None  # noqa: S101
        changed = change(letter)
        left.extend([letter.id] if changed is None else [])
        return changed

    changes = None if change is None else noted
    for message in messages(app, connection, ids=ids, dataset=dataset, where=where, change=changes):
        sent += message.ids
        if limit is not None and len(sent) >= limit:
            return Portion(tuple(sent), sum(id_ < sent[-1] for id_ in left), is_last=False)
    return Portion(tuple(sent), len(left), is_last=True)


def messages(
    app: Celery,
    connection: psycopg.Connection[Any],
    *,
    ids: Sequence[int] | None = None,
    dataset: str | None = None,
    where: Where = EVERY,
    change: Change | None = None,
) -> Iterator[Sent]:
    """Send letters again as `replay` does, yielding each message that was sent.

    `change` corrects each letter, or returns None for one that is to stay. Letters of which only the reason or the
    beginning was kept are left out.
    """
    switch.begin(process_name())  # Celery's instrumentation gives each message its trace
    letters: Iterable[Letter] = dead_letters.stream(connection, ids=ids, dataset=dataset, where=where)
    if change is not None:
        letters = (changed for letter in letters if letter.is_whole and (changed := change(letter)) is not None)
    key = signing.key(connection)
    is_declared = False
    for group in _groups(letter for letter in letters if letter.is_whole):
        try:
            if not is_declared:
                with app.producer_or_acquire() as producer:
                    declare_if_permitted(app, producer.connection, BACKFILL_QUEUE)
                is_declared = True
            yield _send_whole(app, group[0], key) if group[0].row is None else _send_rows(app, group, key)
        except (OperationalError, OSError) as error:
            raise BrokerUnavailable(
                f"the broker did not accept letter {group[0].id} ({reason_of(error)}); it is kept, replay it again"
            ) from error


def _groups(letters: Iterable[Letter]) -> Iterator[list[Letter]]:
    """Group letters by new message: rows of one original message, up to the limits of a producer's messages."""
    for (whole, *_), alike in groupby(letters, key=_origin):
        group: list[Letter] = []
        size = 0
        for letter in alike:
            size += len(letter.row or "")
            if group and (whole or len(group) == _MAX_ROWS or size > _MAX_BYTES):
                yield group
                group, size = [], len(letter.row or "")
            group.append(letter)
        yield group


def _origin(letter: Letter) -> tuple[Any, ...]:
    return letter.row is None, letter.task_id, letter.dataset, letter.defaults, letter.enqueued_at


def _send_rows(app: Celery, letters: list[Letter], key: str) -> Sent:
    first = letters[0]
    sent = Sent(uuid(), tuple(letter.id for letter in letters), whole=False)
    rows = ",".join(letter.row or "" for letter in letters)
    app.send_task(
        TASK,
        args=[first.dataset, msgspec.Raw(f"[{rows}]".encode())],
        kwargs={"defaults": msgspec.Raw(first.defaults.encode())} if first.defaults else {},
        task_id=sent.task_id,
        queue=BACKFILL_QUEUE,
        declare=[],
        mandatory=True,
        serializer=SERIALIZER,
        headers=_headers(first, sent, key),
        argsrepr=f"({first.dataset!r}, <{len(letters)} dead letters>)",
        kwargsrepr="{...}" if first.defaults else "{}",
        ignore_result=True,
    )
    return sent


def _send_whole(app: Celery, letter: Letter, key: str) -> Sent:
    """Send the body unchanged, without a serializer: it may not be JSON."""
    sent = Sent(uuid(), (letter.id,), whole=True)
    content_type, content_encoding = _content(letter)
    headers = {"task": TASK, "id": sent.task_id, "lang": "py", "argsrepr": "<a dead letter>", "kwargsrepr": "{}"}
    if letter.compression:
        headers["compression"] = letter.compression
    with app.producer_or_acquire() as producer:
        producer.publish(
            letter.body or b"",
            routing_key=BACKFILL_QUEUE,
            mandatory=True,
            content_type=content_type,
            content_encoding=content_encoding,
            headers={**headers, **_headers(letter, sent, key)},
            correlation_id=sent.task_id,
            retry=True,
        )
    return sent


def _content(letter: Letter) -> tuple[str, str]:
    if letter.content_type:
        return letter.content_type, letter.content_encoding or "binary"
    # A letter of version 0.4, which did not store the content type.
    return (ARROW, "binary") if is_arrow(letter.body or b"") else (JSON, "utf-8")


def _headers(letter: Letter, sent: Sent, key: str) -> dict[str, Any]:
    replays = signing.signed(Replayed(letter.task_id, sent.ids, sent.whole), sent.task_id, key)
    return {
        ENQUEUED_AT_HEADER: letter.enqueued_at.timestamp(),
        REPLAYS_HEADER: msgspec.to_builtins(replays) | {"ids": list(sent.ids)},
        "ignore_result": True,
    }
