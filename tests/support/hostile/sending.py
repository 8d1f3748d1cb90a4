"""Puts messages into the queue of either broker, past all that Celery and kombu would do to them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import amqp
import kombu
import redis

from support.hostile.entries import entry
from support.hostile.fields import TASK
from support.hostile.grammar import Message

#: Messages that are sent in one command, or before their confirmations are awaited.
_AT_ONCE = 200
#: Seconds for the next confirmation.
_CONFIRMED_WITHIN_S = 30.0


class _Unreadable(amqp.basic_message.Message):
    """A message with a header that py-amqp can neither make nor read."""

    def _serialize_properties(self) -> bytes:
        table = b"\x04taskS" + struct.pack(">I", len(TASK)) + TASK.encode() + b"\x03etaT" + struct.pack(">Q", 2**64 - 1)
        return struct.pack(">H", 0x2000) + struct.pack(">I", len(table)) + table


def send(url: str, messages: Sequence[Message]) -> int:
    """Send them in their order; returns how many bytes they are."""
    return _to_redis(url, messages) if url.startswith("redis") else _to_rabbitmq(url, messages)


def _to_redis(url: str, messages: Sequence[Message]) -> int:
    sent = 0
    with redis.Redis.from_url(url) as client:
        for start in range(0, len(messages), _AT_ONCE):
            entries = [message.entry or entry(message) for message in messages[start : start + _AT_ONCE]]
            client.lpush(TASK, *entries)
            sent += sum(map(len, entries))
    return sent


def _to_rabbitmq(url: str, messages: Sequence[Message]) -> int:
    sent = 0
    with kombu.Connection(url) as connection:
        channel: Any = connection.default_channel
        kombu.Queue(TASK, queue_arguments={"x-queue-type": "quorum"})(channel).declare()
        confirmed = _Confirmed(channel)
        for number, message in enumerate(messages, start=1):
            made = _made(message)
            channel._basic_publish(made, exchange="", routing_key=TASK)
            sent += len(message.body) + len(made._serialize_properties())
            if number % _AT_ONCE == 0 or number == len(messages):
                while confirmed.open(number):
                    connection.drain_events(timeout=_CONFIRMED_WITHIN_S)
    return sent


class _Confirmed:
    """Which messages the broker has, by their numbers from 1; others may be lost when the connection closes."""

    def __init__(self, channel: Any) -> None:
        self._up_to, self._beyond = 0, set[int]()
        channel.events["basic_ack"].add(self._on_ack)
        channel.confirm_select()

    def open(self, number: int) -> bool:
        """Whether one of the messages up to this is not confirmed."""
        while self._up_to + 1 in self._beyond:
            self._up_to += 1
            self._beyond.remove(self._up_to)
        return self._up_to < number

    def _on_ack(self, number: int, multiple: bool) -> None:
        if multiple:
            self._up_to = max(self._up_to, number)
            self._beyond = {each for each in self._beyond if each > number}
        elif number > self._up_to:
            self._beyond.add(number)


def _made(message: Message) -> Any:
    if not message.is_readable:
        return _Unreadable(message.body)
    properties = dict(message.properties)
    for name, value in (("content_type", message.content_type), ("content_encoding", message.content_encoding)):
        if value is not None:
            properties[name] = value
    return amqp.basic_message.Message(message.body, application_headers=message.headers, **properties)
