"""When the messages of a worker were first enqueued, by a server's clock and never by the worker's own.

Redis stamps a message when a worker first takes it (`transport.redis`), so the parent process knows at once what its
header `enqueued_at` is worth. RabbitMQ, and a Redis that refuses to tell its time, stamp nothing. There the parent
notes when a message arrived, by the monotonic clock, and the pool process translates that to Postgres's time. It needs
no query for that: the pool processes of a worker ask Postgres for its time once a minute, and share the answer.

A message whose header has no usable time is as old as its first arrival. Where the broker does not remember that,
Postgres does (`postgres.first_takes`), from when a pool process begins with the message, at one query for all such
messages of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from market_data_store.coordinator.clock import ServerClock, enqueued_at, plausible
from market_data_store.postgres.writer import Writer
from market_data_store.worker.envelope import Envelope
from market_data_store.worker.retrying import persistently, process_writer

#: A producer's clock and Postgres's may differ by this many seconds without either being wrong.
_TOLERANCE_S = 1.0

#: Made before the pool is forked.
_postgres = ServerClock(shared=True)
#: Task ids whose first arrival this process has Postgres remember: while they are processed, and after that until the
#: next query.
_remembered: set[str] = set()
_forgettable: set[str] = set()


def read_header(sent: Any, taken_at: float | None) -> tuple[float | None, float | None]:
    """Return a message's `enqueued_at` and `arrived`, as `Envelope` has them, from its header of whatever type.

    `taken_at` is when a worker first took it, by the broker's clock, if the broker said so.
    """
    if taken_at is not None:
        return enqueued_at(sent, taken_at), None
    return plausible(sent), time.monotonic()


def born(enqueued_at: float | None, taken_at: float | None) -> float:
    """Return when a message that comes now was first enqueued, by the monotonic clock, as far as the broker says."""
    waited_s = 0.0 if taken_at is None or enqueued_at is None else max(0.0, taken_at - enqueued_at)
    return time.monotonic() - waited_s


def dated(envelopes: Sequence[Envelope]) -> list[Envelope]:
    """Return the envelopes with `enqueued_at` known of all; raises `DatabaseUnavailable`."""
    if all(envelope.arrived is None for envelope in envelopes):
        return list(envelopes)
    return persistently(lambda: _dated(envelopes, process_writer()))


def _dated(envelopes: Sequence[Envelope], writer: Writer) -> list[Envelope]:
    if _postgres.is_due:
        _postgres.look(writer.time)
    arrivals = [None if e.arrived is None else _postgres.at(e.arrived) for e in envelopes]
    redelivered = [e.task_id for e in envelopes if e.arrived is not None and e.redelivered]
    first = writer.first_takes(redelivered) if redelivered else {}
    new = {
        e.task_id: arrival
        for e, arrival in zip(envelopes, arrivals, strict=True)
        if arrival is not None and e.task_id not in first and _moment(e, arrival) == arrival
    }
    if new:
        writer.remember_takes(new, _forgettable - new.keys())
        _forgettable.clear()
    _remembered.update(first, new)
    return [
        e if arrival is None else _with_moment(e, _moment(e, first.get(e.task_id, arrival)))
        for e, arrival in zip(envelopes, arrivals, strict=True)
    ]


def _with_moment(envelope: Envelope, moment: float) -> Envelope:
    born = None if envelope.born is None else moment - _postgres.at(0.0)
    return envelope._replace(enqueued_at=moment, arrived=None, born=born)


def _moment(envelope: Envelope, arrival: float) -> float:
    return enqueued_at(envelope.enqueued_at, arrival, tolerance_s=_TOLERANCE_S)


def finished(task_ids: Iterable[str]) -> None:
    """Note that these messages are done; the others that this process has begun go back to the broker."""
    _forgettable.update(_remembered.intersection(task_ids))
    _remembered.clear()
