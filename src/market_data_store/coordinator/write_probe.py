"""Asks the broker whether it takes a write: a broker that answers every question may be full or read-only.

On Redis it is a command that counts as a write and writes nothing. A server refuses it as it refuses a message: OOM
(`maxmemory`, noeviction), READONLY (a replica), MISCONF (no snapshot), NOREPLICAS. On RabbitMQ it is a message to a
queue that does not exist, which the broker drops: only to a connection that publishes does it say that its memory or
disk alarm blocks publishers. What a policy refuses (`max-length` with `reject-publish`) only the management API shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import amqp

from market_data_store.protocol import QUEUE

#: A key and a queue that do not exist. The name is within what a user of the broker may use for the store.
_NOWHERE = f"{QUEUE}.probe"


class WriteProbe:
    """Asks over the connection that it is given.

    A blocked connection of RabbitMQ answers nothing. The probe keeps one that was blocked, and learns over it when the
    alarm ends; other questions need another connection until then.
    """

    def __init__(self, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        #: Of the connection that was asked last: its channel for this.
        self._connection: Any = None
        self._channel: Any = None
        self._is_confirmed = False
        #: Why the broker blocks publishers, if it does.
        self.blocked: str | None = None
        #: Whether the broker's user may not publish to where the question goes.
        self._is_forbidden = False

    def look(self, connection: Any) -> str | None:
        """Return why the broker takes no write, in one line; None if it takes writes, or if that cannot be known.

        Raises what the driver raises if it gives no answer.
        """
        channel = connection.default_channel
        if hasattr(channel, "unacked_key"):
            return refusal_of_redis(channel, "LPUSHX", "")
        return None if self._is_forbidden else self._look_at_rabbitmq(connection)

    def keeps(self, connection: Any) -> bool:
        """Whether this connection is blocked, and for the probe only."""
        return self.blocked is not None and connection is self._connection

    def close(self) -> None:
        """Close the connection that it keeps."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None and self.blocked is not None:
            connection.collect()  # not `close`, which would wait for a server that hangs
        self.blocked = None

    def _look_at_rabbitmq(self, connection: Any) -> str | None:
        if self.blocked is not None:
            self._read_what_came(self._channel.connection)
            if self.blocked is not None:
                return self.blocked
            self._connection.collect()
        if connection is not self._connection:
            self._open(connection)
        self._read_what_came(self._channel.connection)
        self._is_confirmed = False
        try:
            self._channel._basic_publish(amqp.Message(), exchange="", routing_key=_NOWHERE)
            while not self._is_confirmed and self.blocked is None:
                self._channel.connection.drain_events(timeout=self._deadline_s)
        except amqp.exceptions.AccessRefused:
            self._is_forbidden = True
            self._channel = self._connection = None
        return self.blocked

    def _open(self, connection: Any) -> None:
        self._connection = connection
        channel = connection.channel()
        channel.connection.on_blocked = self._on_blocked
        channel.connection.on_unblocked = self._on_unblocked
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        self._channel = channel

    @staticmethod
    def _read_what_came(connection: Any) -> None:
        try:
            while True:
                connection.drain_events(timeout=0)
        except TimeoutError:
            pass

    def _on_ack(self, *_: Any) -> None:
        self._is_confirmed = True

    def _on_blocked(self, reason: str) -> None:
        self.blocked = first_line(f"RabbitMQ blocks publishers: {reason}")

    def _on_unblocked(self) -> None:
        self.blocked = None


def refusal_of_redis(channel: Any, command: str, *arguments: str) -> str | None:
    """Return why a Redis refuses this command on a key that does not exist; None if it does not, or that is unknown."""
    try:
        channel.client.execute_command(command, f"{channel.global_keyprefix}{_NOWHERE}", *arguments)
    except channel.ResponseError as error:
        return _words(error)
    return None


def refusal_in(error: BaseException) -> str | None:
    """Return in one line what a Redis said that answered with an error; None if no answer is the cause of this one.

    A Redis that cannot save answers so even to PING, with which each new connection begins.
    """
    cause: BaseException | None = error
    while cause is not None and not _is_of_redis(cause, "ResponseError"):
        cause = cause.__cause__
    return None if cause is None else _words(cause)


def _is_of_redis(error: BaseException, name: str) -> bool:
    """Whether it is this error of the driver, by its name: a producer does not import the driver."""
    return any(kind.__name__ == name and kind.__module__ == "redis.exceptions" for kind in type(error).__mro__)


def _words(error: BaseException) -> str | None:
    code = getattr(error, "status_code", None) or ""
    # ERR is what a server says that does not know the command.
    if _is_of_redis(error, "NoPermissionError") or code == "ERR":
        return None
    said = str(error).rpartition(" of pipeline caused error: ")[2]  # redis-py's words before the server's
    return first_line(f"{code} {said}".strip())


def overflow_of(queue: Mapping[str, Any]) -> str | None:
    """Return why a queue takes no message by its policy, from what RabbitMQ's management API says of the queue."""
    policy = {**(queue.get("effective_policy_definition") or {}), **(queue.get("arguments") or {})}
    if policy.get("overflow", policy.get("x-overflow")) not in ("reject-publish", "reject-publish-dlx"):
        return None
    for limit, counted in (("max-length", "messages_ready"), ("max-length-bytes", "message_bytes_ready")):
        most = policy.get(limit, policy.get(f"x-{limit}"))
        if isinstance(most, int) and queue.get(counted, 0) >= most:
            return f"the queue has reached its {limit} of {most:,}, and its policy rejects what comes"
    return None


def first_line(text: str) -> str:
    """Return the first line of a text."""
    return text.partition("\n")[0]
