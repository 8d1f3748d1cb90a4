"""Releases messages that wait in lists of a Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from kombu.utils.json import dumps

from market_data_store.protocol import ENQUEUED_AT_HEADER, LANES, QUEUE, again_queue
from market_data_store.transport.redis.envelopes import envelope_of
from market_data_store.transport.redis.scripts import LOOK, RELEASE, TAKEN, run
from market_data_store.transport.releasing import PORTION_BYTES, SetAside, time_of

#: Queues of messages that run alone.
_AGAIN = frozenset(map(again_queue, LANES.values()))


class _Place(NamedTuple):
    """Where a message is, its text there, and the text that it gets."""

    list_name: str
    text: bytes
    released: bytes | str


class RedisReleaser:
    """A `releasing.Releaser`."""

    def __init__(self, app: Any) -> None:
        self._connection = app.connection_for_write()
        self._connection.ensure_connection(max_retries=0)
        self._channel = self._connection.default_channel

    def take(self, queue: str, most: int) -> list[SetAside]:
        """Look at the messages; they stay where they are until they are released."""
        for step in self._channel.priority_steps:  # kombu keeps those of each priority in a list of their own
            name = self._channel._q_for_pri(queue, step)  # kombu has no other name for it
            texts: list[bytes] = run(self._channel, LOOK, [name], most, PORTION_BYTES)
            if texts:
                return [_looked_at(text, name, queue) for text in texts]
        return []

    def release(self, messages: Sequence[SetAside]) -> Counter[str]:
        """Move them in one step."""
        lists = [message.known_as.list_name for message in messages]
        texts = [text for message in messages for text in (message.known_as.text, message.known_as.released)]
        moved = run(self._channel, RELEASE, [QUEUE, *lists], *texts)
        return Counter(message.queue for message, is_moved in zip(messages, moved, strict=True) if is_moved)

    def taken(self, queues: Sequence[str]) -> Counter[str]:
        """Count those that Redis has recorded as taken from these lists."""
        counts = run(self._channel, TAKEN, [self._channel.unacked_key], *queues)
        return Counter({queue: count for queue, count in zip(queues, counts, strict=True) if count})

    def close(self) -> None:
        """Close the connection."""
        self._connection.collect()


def _looked_at(text: bytes, list_name: str, queue: str) -> SetAside:
    sent, released = _released(text, queue)
    return SetAside(queue, sent, _Place(list_name, text, released))


def _released(text: bytes, queue: str) -> tuple[float, bytes | str]:
    """A message's time, and its text as it will be.

    Version 0.4 does not know `taken_at`, and would take the message for one that was sent now. It runs a message alone
    that is marked as redelivered, as those of `again_queue` must. A worker that gives a message back puts it into the
    queue that the message names.
    """
    try:
        payload = envelope_of(text)
        delivery = payload["properties"]["delivery_info"]
    except (ValueError, LookupError, TypeError):  # not a worker's; whoever takes it keeps it apart
        return 0.0, text
    headers = payload.get("headers")
    headers = headers if isinstance(headers, dict) else {}
    changed = queue in _AGAIN
    if changed:
        headers["redelivered"] = delivery["redelivered"] = True
    if delivery.get("routing_key") != QUEUE:
        delivery["routing_key"] = QUEUE
        changed = True
    if ENQUEUED_AT_HEADER not in headers and "taken_at" in payload:
        headers[ENQUEUED_AT_HEADER] = payload["taken_at"]
        changed = True
    released = str(dumps({**payload, "headers": headers})) if changed else text
    return time_of(headers.get(ENQUEUED_AT_HEADER)), released
