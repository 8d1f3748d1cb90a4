"""kombu's Redis channel, with messages taken and recorded by one script."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from queue import Empty
from time import monotonic, time
from typing import Any, ClassVar, NamedTuple

import msgspec
import pybase64
from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str, str_to_bytes
from kombu.utils.json import loads
from redis.exceptions import NoPermissionError, ResponseError

from market_data_store.transport.redis.qos import QoS
from market_data_store.transport.redis.scripts import FETCH, MOVE

logger = logging.getLogger(__name__)

#: A fetch takes so many messages at most, and stops at about so many bytes, so that a script takes milliseconds.
FETCH_MESSAGES = 100
FETCH_BYTES = 2 << 20
#: Messages that are given back with one round trip.
GIVE_BACK_MESSAGES = 50
#: BLMOVE waits at one list. While there are others (further queues, kombu's four priorities), these are looked at after
#: so many seconds.
LOOK_S = 0.1
#: A server that refused BLMOVE (for its rules, or because it is full) is asked again after so many seconds.
BLMOVE_RETRY_S = 10.0


class _Sent(NamedTuple):
    """What the channel waits for the reply of."""

    #: The command that waits for a message, if one was sent before the script.
    waiting: str | None
    #: For each list that the script looks at: its queue and key.
    lists: list[tuple[str, str]]


class _Base64:
    """kombu's codec of bodies, with a quick one: Python's own took a fifth of a worker's time."""

    def encode(self, body: str | bytes) -> str:
        return pybase64.b64encode_as_string(str_to_bytes(body))

    def decode(self, text: str | bytes) -> bytes:
        return pybase64.b64decode(text)


class _Pushes(list[tuple[str, str]]):
    """Takes what kombu would push to lists."""

    def rpush(self, key: str, text: str) -> None:
        self.append((key, text))


class Channel(redis.Channel):
    """kombu's channel, with the script in the place of BRPOP."""

    QoS = QoS
    codecs: ClassVar[dict[str, Any]] = {"base64": _Base64()}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._is_refused = False
        self._is_idle = False
        self._latest = ""
        self._no_blmove_until = 0.0
        self._without_ack: set[str] = set()
        self._sent = _Sent(None, [])
        super().__init__(*args, **kwargs)

    @property
    def reserves(self) -> bool:
        """Whether messages are taken by the script; if not, all is as with kombu."""
        return bool(self.ack_emulation) and not self._is_refused

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue."""
        (self._without_ack.add if no_ack else self._without_ack.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send the script; behind a command that waits for a message, if the last one found none."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues or not self.reserves:
            super()._brpop_start(timeout)
            return
        lists = [(queue, self._q_for_pri(queue, step)) for step in self.priority_steps for queue in queues]
        commands = [self._fetch(lists)]
        if self._is_idle:
            commands.insert(0, self._wait(lists, self.brpop_timeout if timeout is None else timeout))
        self._sent = _Sent(commands[0][0] if self._is_idle else None, lists)
        connection = self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        connection.send_packed_command(connection.pack_commands(commands))

    def _fetch(self, lists: Sequence[tuple[str, str]]) -> tuple[Any, ...]:
        most: int = FETCH_MESSAGES
        if "can_consume" in vars(self.qos) or not self._without_ack.isdisjoint(queue for queue, _ in lists):
            most = 1  # Celery's worker_disable_prefetch; and what is not acknowledged should not wait here
        elif self.qos.prefetch_count:
            most = max(1, min(most, self.qos.can_consume_max_estimate()))
        keys = [self.unacked_key, self.unacked_index_key, self._malformed_key, *(key for _, key in lists)]
        keys = [self.global_keyprefix + key for key in keys]
        records = [int(queue not in self._without_ack) for queue, _ in lists]
        return ("EVAL", FETCH, len(keys), *keys, most, FETCH_BYTES, time(), *records)

    def _wait(self, lists: Sequence[tuple[str, str]], timeout_s: float) -> tuple[Any, ...]:
        may_peek = monotonic() >= self._no_blmove_until
        if len(lists) > 1 or not may_peek:
            timeout_s = min(timeout_s or LOOK_S, LOOK_S)
        if may_peek:
            key = self.global_keyprefix + dict(reversed(lists)).get(self._latest, lists[0][1])
            return ("BLMOVE", key, key, "RIGHT", "RIGHT", timeout_s)
        # A list to which nobody pushes: the server is the clock, so that the event loop is not held up.
        return ("BRPOP", f"{self.global_keyprefix}{self.unacked_key}_clock", timeout_s)

    @property
    def _malformed_key(self) -> str:
        return f"{self.unacked_key}_malformed"

    def _brpop_read(self, **options: Any) -> bool:
        """Deliver what the script has taken. Raises `Empty`."""
        if not self.reserves:
            return bool(super()._brpop_read(**options))
        connection = self.client.connection
        try:
            number, malformed, *found = self._replies(connection)
        except BaseException:
            connection.disconnect()  # a reply that was not read would pass for the next one's
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if malformed:
            logger.error("%d entries were no messages and are kept in the list %s", malformed, self._malformed_key)
        self._is_idle = not found
        if not found:
            if self.connection.hub is None and not self._closing:
                # kombu does so when a poll has run out, which the short waits of `LOOK_S` never let happen.
                self.connection.cycle.maybe_restore_messages()
            raise Empty
        queue, key = self._sent.lists[number]
        self._latest = self._queue_cycle.rotate(queue)
        self._deliver_all(queue, key, deque(zip(found[::2], found[1::2], strict=True)))
        return True

    def _replies(self, connection: Any) -> Any:
        if self._sent.waiting:
            try:
                self.client.parse_response(connection, self._sent.waiting)
            except ResponseError as error:
                if self._sent.waiting == "BLMOVE":
                    self._no_blmove_until = monotonic() + BLMOVE_RETRY_S
                    logger.warning("Redis refuses BLMOVE (%s): messages are looked for every %g s", error, LOOK_S)
        try:
            return self.client.parse_response(connection, "EVAL")
        except ResponseError as error:
            if not self._refuses_scripts(error):
                raise
            self._is_refused = True
            logger.warning(
                "Redis refuses EVAL (%s): messages are taken as by Celery's own transport, and a worker that is killed "
                "can lose one",
                error,
            )
            return -1, 0

    def _refuses_scripts(self, error: ResponseError) -> bool:
        if isinstance(error, NoPermissionError):
            return True
        try:  # an unknown command has no class of its own; a server in trouble still runs this one
            with self.conn_or_acquire() as client:
                client.eval("return 1", 0)
        except ResponseError:
            return True
        return False

    def _deliver_all(self, queue: str, key: str, waiting: deque[tuple[bytes, bytes]]) -> None:
        without_ack = queue in self._without_ack
        if not without_ack and (self._closing or queue not in self.connection._callbacks):
            self._move((key, *message) for message in reversed(waiting))
            raise Empty
        try:
            while waiting:
                tag, text = waiting.popleft()
                self.qos.is_recorded = not without_ack
                try:
                    self.connection._deliver(_envelope(text), queue)
                except Exception as error:
                    if not self.qos.is_recorded:  # the consumer's own
                        raise
                    logger.error(  # not the error's text: it may hold what the message holds
                        "A message could not be read (%s) and is kept in the list %s",
                        type(error).__name__,
                        self._malformed_key,
                    )
                    self._move([(self._malformed_key, tag, text)])
                finally:
                    self.qos.is_recorded = False
        finally:
            if waiting:
                self._move((key, *message) for message in reversed(waiting))

    def close(self) -> None:
        """Close, with what is acknowledged sent and the rest given back."""
        try:
            super().close()
        finally:
            self._disconnect_pools()  # kombu gives back by connections that it opens anew, and leaves them open

    def give_back(self, tags: Sequence[str]) -> None:
        """Put messages back where they came from, marked as redelivered, the first of them to be taken first."""
        last_first = tags[::-1]
        with self.conn_or_acquire() as client:
            for start in range(0, len(tags), GIVE_BACK_MESSAGES):
                some = last_first[start : start + GIVE_BACK_MESSAGES]
                moves = []
                for tag, record in zip(some, client.hmget(self.global_keyprefix + self.unacked_key, some), strict=True):
                    if record is not None:
                        pushes = _Pushes()
                        self._do_restore_message(*loads(bytes_to_str(record)), pushes)
                        moves += [(key, tag, text) for key, text in pushes]
                self._move(moves, client)

    def _move(self, moves: Iterable[tuple[str, str | bytes, str | bytes]], client: Any = None) -> None:
        """Have Redis move reserved messages (list, delivery tag, text) to the ends of these lists."""
        moves = list(moves)
        keys = [self.unacked_key, self.unacked_index_key, *(key for key, _, _ in moves)]
        texts = [part for _, tag, text in moves for part in (tag, text)]
        with self.conn_or_acquire(client) as client:
            client.eval(MOVE, len(keys), *(self.global_keyprefix + key for key in keys), *texts)

    def _do_restore_message(self, payload: Any, *args: Any, **kwargs: Any) -> None:
        # kombu marks the headers, and drops a message where they are null.
        if not isinstance(payload.get("headers"), dict):
            payload["headers"] = {}
        super()._do_restore_message(payload, *args, **kwargs)


def _envelope(text: bytes) -> Any:
    try:
        envelope = msgspec.json.decode(text)
    except (ValueError, RecursionError):  # what Python takes for JSON is more: NaN, half a surrogate pair
        envelope = loads(bytes_to_str(text))
    if not isinstance(envelope["properties"]["delivery_info"], dict):  # an empty list is the same to Lua
        raise TypeError("delivery_info is no object")
    return envelope


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same, to the master that Sentinel names."""


class Transport(redis.Transport):
    """For redis:// and rediss://."""

    Channel = Channel
    #: The event loop of the worker that consumes by this connection.
    hub: Any = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Called by a worker with its event loop."""
        super().register_with_event_loop(connection, loop)
        self.hub = loop


class SentinelTransport(Transport, redis.SentinelTransport):
    """For sentinel://."""

    Channel = SentinelChannel
