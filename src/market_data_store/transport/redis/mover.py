"""Moves messages between the lists of a Redis, each in one step."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Any

from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps
from redis.exceptions import ResponseError

from market_data_store.transport.moving import Move, MoveRefused
from market_data_store.transport.redis.channel import FETCH_BYTES, Channel
from market_data_store.transport.redis.envelopes import envelope_of
from market_data_store.transport.redis.malformed import NOT_A_MESSAGE
from market_data_store.transport.redis.scripts import FETCH, POUR, RENEW, run


class RedisMover:
    """A `moving.Mover` over the channel of a worker's consumer."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def declare(self, queues: Sequence[str]) -> dict[str, int]:
        """Count the messages; a list needs no declaration."""
        return {queue: int(run(self._channel, "return redis.call('LLEN', KEYS[1])", [queue])) for queue in queues}

    def waiting(self, queue: str) -> int | None:
        """None: any thread can ask over the connections that the process shares."""
        return None

    def move(self, moves: Sequence[Move], queue: str) -> None:
        """Move messages that Redis still has recorded as this worker's."""
        entries = [(queue, move.message.delivery_tag, _text(move)) for move in moves]
        try:
            self._channel._move(entries, command="LPUSH")
        except ResponseError as error:
            raise MoveRefused(str(error)) from error
        for move in moves:
            move.message._state = "ACK"
            if move.message.channel is self._channel:
                self._channel.qos.let_go(move.message.delivery_tag)

    def take(self, queue: str) -> Any | None:
        """Take a message by the script that takes the others, which records this queue as its origin."""
        channel = self._channel
        keys = [channel.unacked_key, channel.unacked_index_key, channel._malformed_key, queue]
        _, malformed, *found = run(self._channel, FETCH, keys, FETCH_BYTES, time(), queue, 1)
        if malformed:
            channel.malformed.found(malformed, NOT_A_MESSAGE)
        if not found:
            return None
        tag, text, taken_at = found
        try:
            message = channel.Message(envelope_of(text, bytes_to_str(tag)), channel=channel)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            channel.set_aside(tag, text, error)
            return None
        message.taken_at = float(taken_at) if taken_at else None
        message.queue = queue
        channel.qos.is_recorded = True
        channel.qos.append(message, message.delivery_tag)
        return message

    def pour(self, source: str, target: str, most: int) -> int:
        """Move waiting messages in one step."""
        return int(run(self._channel, POUR, [source, target], most))

    @property
    def lease_s(self) -> float | None:
        """The visibility timeout."""
        return float(self._channel.visibility_timeout)

    def renew(self) -> None:
        """Renew the times from which the visibility timeout counts, of messages that are still recorded."""
        channel = self._channel
        if tags := list(channel.qos._delivered):
            with channel.conn_or_acquire() as client:
                key = channel.global_keyprefix + channel.unacked_index_key
                client.eval(RENEW, 1, key, channel.server_time(client), *tags)

    def lost(self) -> list[str]:
        """Let the channel count no turn when it gives its messages back, which fails if Redis is away."""
        self._channel.counts_turns = False
        return list(self._channel.qos._delivered)

    def give_back(self, tags: Sequence[str]) -> None:
        """Put back what Redis has recorded, without a turn."""
        self._channel.counts_turns = False
        try:
            self._channel.give_back(tags)
        except ResponseError as error:
            raise MoveRefused(str(error)) from error
        finally:
            self._channel.counts_turns = True

    def close(self) -> None:
        """Do nothing: the channel is the consumer's."""


def _text(move: Move) -> str:
    payload = move.message._raw
    headers = payload.get("headers")
    headers = {**(headers if isinstance(headers, dict) else {}), **move.headers}
    known = {} if move.message.taken_at is None else {"taken_at": move.message.taken_at}
    return str(dumps({**payload, "headers": headers, **known}))
