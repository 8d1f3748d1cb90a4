"""Where a message goes back to that was taken, and not acknowledged."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as NoAnswer

from market_data_store.protocol import MALFORMED, TURNS_HEADER
from market_data_store.transport.moving import DELIVERY_COUNT_HEADER, counted_turns
from market_data_store.transport.redis.malformed import MOST_ENTRIES, Malformed


class RestoringChannel(redis.Channel):
    """A channel that gives messages back to where they came from, and sets aside what cannot be given back."""

    #: Whether a message that is given back has had a turn that ended badly.
    counts_turns = True

    @cached_property
    def malformed(self) -> Malformed:
        """What this channel has put into the list of what is malformed."""
        return Malformed(self._malformed_key)

    @property
    def _malformed_key(self) -> str:
        return f"{self.unacked_key}{MALFORMED}"

    def close(self) -> None:
        """Say what has not been said yet, and close."""
        try:
            super().close()
        finally:
            self.malformed.say(is_last=True)

    def restored(self, record: str | bytes) -> list[tuple[str, str | bytes]]:
        """Return to which lists a recorded message goes back, with its text; never raises an error of its making.

        That is the queue that it was taken from, which the script recorded. A record that says of none that exists,
        or that cannot be read, is kept in the list of what is malformed.
        """
        try:
            payload, exchange, routing_key = loads(bytes_to_str(record))
            return self._restored(payload, exchange, routing_key)
        except (LostConnection, NoAnswer):
            raise
        except Exception as error:  # noqa: BLE001  # anybody can send a message; none may keep others from going back
            self.malformed.found(1, type(error).__name__)  # without the record: it holds the message's values
            return [(self._malformed_key, record)]

    def _restored(self, payload: Any, exchange: Any, routing_key: Any) -> list[tuple[str, str | bytes]]:
        if not isinstance(payload.get("headers"), dict):
            payload["headers"] = {}
        # Whoever had it did not get to say what became of it.
        headers, origin = payload["headers"], payload["properties"]["delivery_info"]
        headers.pop(DELIVERY_COUNT_HEADER, None)  # RabbitMQ's: here, nobody but the sender has written it
        headers[TURNS_HEADER] = counted_turns(headers) + self.counts_turns
        headers["redelivered"] = origin["redelivered"] = True
        if not isinstance(exchange, str) or not isinstance(routing_key, str):
            raise TypeError("no queue")
        # Records of other versions and of kombu have what the sender wrote there.
        queues = self._lookup(exchange, routing_key) if exchange else [routing_key]
        if not queues or not all(queues):
            raise ValueError("no queue")
        text = str(dumps(payload))
        priority = self._get_message_priority({"properties": {"priority": _priority(payload)}}, reverse=False)
        return [(self._q_for_pri(queue, priority), text) for queue in queues]

    def _do_restore_message(
        self, payload: Any, exchange: Any, routing_key: Any, pipe: Any, leftmost: bool = False
    ) -> None:
        self.put_back(pipe, self.restored(str(dumps([payload, exchange, routing_key]))), leftmost=leftmost)

    def put_back(self, pipe: Any, restored: Iterable[tuple[str, str | bytes]], *, leftmost: bool) -> None:
        """Push what `restored` returns to its lists; the list of what is malformed stays bounded."""
        for key, text in restored:
            is_malformed = key == self._malformed_key
            (pipe.lpush if leftmost or is_malformed else pipe.rpush)(key, text)
            if is_malformed:
                pipe.ltrim(key, 0, MOST_ENTRIES - 1)


def _priority(payload: Any) -> int | None:
    priority = payload["properties"].get("priority")
    return priority if isinstance(priority, int) and 0 <= priority <= 9 else None
