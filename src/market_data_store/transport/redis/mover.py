"""Moves messages between the lists of a Redis, each in one step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import time
from typing import Any

from kombu.utils.json import dumps
from redis.exceptions import ResponseError

from market_data_store.transport.moving import Move, MoveRefused
from market_data_store.transport.redis.channel import FETCH_BYTES, Channel, envelope_of
from market_data_store.transport.redis.scripts import FETCH, POUR

logger = logging.getLogger(__name__)


class RedisMover:
    """A `moving.Mover` over the channel of a worker's consumer."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def declare(self, queues: Sequence[str]) -> dict[str, int]:
        """Count the messages; a list needs no declaration."""
        return {queue: int(self._run("return redis.call('LLEN', KEYS[1])", [queue])) for queue in queues}

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
        _, malformed, *found = self._run(FETCH, keys, 1, FETCH_BYTES, time(), queue)
        if malformed:
            logger.error("%d entries were not messages and are kept in the list %s", malformed, channel._malformed_key)
        if not found:
            return None
        _, text, taken_at = found
        message = channel.Message(envelope_of(text), channel=channel)
        message.taken_at = float(taken_at) if taken_at else None
        channel.qos.is_recorded = True
        channel.qos.append(message, message.delivery_tag)
        return message

    def pour(self, source: str, target: str, most: int) -> int:
        """Move waiting messages in one step."""
        return int(self._run(POUR, [source, target], most))

    @property
    def lease_s(self) -> float | None:
        """The visibility timeout."""
        return float(self._channel.visibility_timeout)

    def renew(self) -> None:
        """Renew the times from which the visibility timeout counts, of messages that are still recorded."""
        channel = self._channel
        if tags := list(channel.qos._delivered):
            with channel.conn_or_acquire() as client:
                now = channel.server_time(client)
                client.zadd(channel.unacked_index_key, dict.fromkeys(tags, now), xx=True)

    def close(self) -> None:
        """Do nothing: the channel is the consumer's."""

    def _run(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        prefixed = [self._channel.global_keyprefix + key for key in keys]
        try:
            with self._channel.conn_or_acquire() as client:
                return client.eval(script, len(prefixed), *prefixed, *arguments)
        except ResponseError as error:
            raise MoveRefused(str(error)) from error


def _text(move: Move) -> str:
    payload = move.message._raw
    headers = payload.get("headers")
    headers = {**(headers if isinstance(headers, dict) else {}), **move.headers}
    known = {} if move.message.taken_at is None else {"taken_at": move.message.taken_at}
    return str(dumps({**payload, "headers": headers, **known}))
