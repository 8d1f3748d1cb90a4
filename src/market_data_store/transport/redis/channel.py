"""kombu's Redis channel, which takes and records messages by one script."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty
from time import monotonic, time
from typing import Any, ClassVar, NamedTuple

import pybase64
from kombu.utils.encoding import bytes_to_str, str_to_bytes
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from market_data_store.protocol import BACKFILL_QUEUE, LANES
from market_data_store.transport.redis.broadcasts import ListeningChannel
from market_data_store.transport.redis.envelopes import envelope_of
from market_data_store.transport.redis.malformed import MOST_ENTRIES, NOT_A_MESSAGE
from market_data_store.transport.redis.message import Message
from market_data_store.transport.redis.order import LiveFirst
from market_data_store.transport.redis.peeking import LOOK_S, Peeking
from market_data_store.transport.redis.qos import QoS
from market_data_store.transport.redis.restoring import RestoringChannel
from market_data_store.transport.redis.scripts import FETCH, MOVE
from market_data_store.transport.redis.sharing import SharingChannel

logger = logging.getLogger(__name__)

#: The most messages that a fetch takes, and about how many bytes end it: the script then takes milliseconds.
FETCH_MESSAGES = 100
FETCH_BYTES = 2 << 20
#: The most messages that are given back in one round trip.
GIVE_BACK_MESSAGES = 50
_LANES = frozenset(LANES.values())


class _Sent(NamedTuple):
    """The commands whose replies the channel awaits."""

    #: The command that waits for a message, if one was sent before the script.
    waiting: str | None
    #: The queue and the key of each list that the script reads.
    lists: list[tuple[str, str]]


class _Base64:
    """A faster codec for bodies than kombu's: Python's own base64 took a fifth of a worker's time."""

    def encode(self, body: str | bytes) -> str:
        return pybase64.b64encode_as_string(str_to_bytes(body))

    def decode(self, text: str | bytes) -> bytes:
        return pybase64.b64decode(text)


class Channel(RestoringChannel, ListeningChannel, SharingChannel):
    """kombu's channel, with the script in place of BRPOP."""

    QoS = QoS
    Message = Message
    codecs: ClassVar[dict[str, Any]] = {"base64": _Base64()}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._is_refused = False
        #: Of the message that is being delivered, as `Message` has it.
        self.taken_at: float | None = None
        self.delivers_from: str | None = None
        self._is_idle = False
        self._latest = ""
        self._peeking = Peeking()
        self._without_ack: set[str] = set()
        self._sent = _Sent(None, [])
        super().__init__(*args, **kwargs)
        self._queue_cycle = LiveFirst(lambda queue: not self.ack_emulation or self.qos.room(queue) > 0)

    @property
    def reserves(self) -> bool:
        """Whether the script takes messages; otherwise the channel works as kombu's."""
        return bool(self.ack_emulation) and not self._is_refused

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue."""
        (self._without_ack.add if no_ack else self._without_ack.discard)(queue)
        tag = super().basic_consume(queue, no_ack, *args, **kwargs)
        callbacks = self.connection._callbacks
        callbacks[queue] = partial(self._deliver_from, queue, callbacks[queue])
        return tag

    def _deliver_from(self, queue: str, deliver: Callable[[Any], None], payload: Any) -> None:
        self.delivers_from = queue
        try:
            deliver(payload)
        finally:
            self.delivers_from = None

    def _queue_bind(self, exchange: str, *args: Any) -> None:
        """Bind a queue; where a full server refuses, that it is bound already, or subscribes, is enough.

        Otherwise a worker could not start to take messages from a full server, which makes room. Nor does it wait for a
        place for `BACKFILL_QUEUE`, which no version before bound: Celery sends to a queue by its name, without binding.
        """
        try:
            super()._queue_bind(exchange, *args)
        except OutOfMemoryError:
            is_bound = args[-1] in {queue for *_, queue in self.get_table(exchange)}
            if not is_bound and args[-1] != BACKFILL_QUEUE and self.typeof(exchange).type != "fanout":
                raise

    def maybe_refresh_binding_expiry(self) -> None:
        """Keep bindings from expiring; a full server refuses, and is asked again."""
        with suppress(OutOfMemoryError):
            super().maybe_refresh_binding_expiry()

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send the script, after a command that waits for a message if the last script found none."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues or not self.reserves:
            super()._brpop_start(timeout)
            return
        steps = self.priority_steps
        lists = [(queue, self._q_for_pri(queue, step)) for queue in queues if queue in _LANES for step in steps]
        lists += [(queue, self._q_for_pri(queue, step)) for step in steps for queue in queues if queue not in _LANES]
        commands = [self._fetch(lists)]
        if self._is_idle:
            commands.insert(0, self._wait(lists, self.brpop_timeout if timeout is None else timeout))
        self._sent = _Sent(commands[0][0] if self._is_idle else None, lists)
        connection = self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        connection.send_packed_command(connection.pack_commands(commands))

    def _fetch(self, lists: Sequence[tuple[str, str]]) -> tuple[Any, ...]:
        most = [min(FETCH_MESSAGES, self.qos.room(queue)) for queue, _ in lists]
        if "can_consume" in vars(self.qos) or not self._without_ack.isdisjoint(queue for queue, _ in lists):
            most = [1] * len(lists)  # for Celery's worker_disable_prefetch, and for messages that are not acknowledged
        records = ["" if queue in self._without_ack else queue for queue, _ in lists]
        # A user who takes only answers and events, as Flower's, has no right to others' messages.
        recorded = [self.unacked_key, self.unacked_index_key] if any(records) else [self._malformed_key] * 2
        keys = [*recorded, self._malformed_key, *(key for _, key in lists)]
        keys = [self.global_keyprefix + key for key in keys]
        return ("EVAL", FETCH, len(keys), *keys, FETCH_BYTES, time(), *records, *most)

    def _wait(self, lists: Sequence[tuple[str, str]], timeout_s: float) -> tuple[Any, ...]:
        # BLMOVE waits for one list, that of live rows if it is among them. If there are others (more queues, kombu's
        # four priorities), they are polled.
        may_peek = self._peeking.may_peek
        if len(lists) > 1 or not may_peek:
            timeout_s = min(timeout_s or LOOK_S, LOOK_S)
        if may_peek:
            queue, first = lists[0]
            found = first if queue in _LANES else dict(reversed(lists)).get(self._latest, first)
            key = self.global_keyprefix + found
            return ("BLMOVE", key, key, "RIGHT", "RIGHT", timeout_s)
        # Nobody pushes to this list: the server waits, so that the event loop does not.
        return ("BRPOP", f"{self.global_keyprefix}{self.unacked_key}_clock", timeout_s)

    def _brpop_read(self, **options: Any) -> bool:
        """Deliver the messages that the script took. Raises `Empty`."""
        if not self.reserves:
            return bool(super()._brpop_read(**options))
        connection = self.client.connection
        try:
            number, malformed, *found = self._replies(connection)
        except BaseException:
            connection.disconnect()  # an unread reply would be taken for that of the next command
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if malformed:
            self.malformed.found(malformed, NOT_A_MESSAGE)
        self.malformed.say()
        self._is_idle = not found
        if not found:
            if self.connection.hub is None and not self._closing:
                # kombu does so when a poll times out, which never happens with the short waits of `LOOK_S`.
                self.connection.cycle.maybe_restore_messages()
            raise Empty
        queue, key = self._sent.lists[number]
        self._latest = self._queue_cycle.rotate(queue)
        self._deliver_all(queue, key, deque(zip(found[::3], found[1::3], found[2::3], strict=True)))
        return True

    def _replies(self, connection: Any) -> Any:
        if self._sent.waiting:
            try:
                self.client.parse_response(connection, self._sent.waiting)
                if self._sent.waiting == "BLMOVE":
                    self._peeking.accepted()
            except ResponseError as error:
                if self._sent.waiting == "BLMOVE":
                    self._peeking.refused(error)
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
        try:  # an unknown command has no error class; a server in trouble still runs this script
            with self.conn_or_acquire() as client:
                client.eval("return 1", 0)
        except ResponseError:
            return True
        return False

    def _deliver_all(self, queue: str, key: str, waiting: deque[tuple[bytes, bytes, bytes]]) -> None:
        without_ack = queue in self._without_ack
        if not without_ack and (self._closing or queue not in self.connection._callbacks):
            self._move((key, tag, text) for tag, text, _ in reversed(waiting))
            raise Empty
        try:
            while waiting:
                tag, text, taken_at = waiting.popleft()
                self.qos.is_recorded = not without_ack
                self.taken_at = float(taken_at) if taken_at else None
                try:
                    self.connection._deliver(envelope_of(text, bytes_to_str(tag)), queue)
                except Exception as error:
                    if not self.qos.is_recorded:  # the consumer's own
                        raise
                    self.set_aside(tag, text, error)
                finally:
                    self.qos.is_recorded = False
                    self.taken_at = None
        finally:
            if waiting:
                self._move((key, tag, text) for tag, text, _ in reversed(waiting))

    def set_aside(self, tag: bytes, text: bytes, error: Exception) -> None:
        """Keep a message that cannot be read in the list of what is malformed."""
        self.malformed.found(1, type(error).__name__)  # without the error's text: it may contain the message's values
        self._set_aside([(self._malformed_key, tag, text)])

    def _set_aside(self, moves: Sequence[tuple[str, str | bytes, str | bytes]], client: Any = None) -> None:
        if not moves:
            return
        with self.conn_or_acquire(client) as client:
            self._move(moves, client, command="LPUSH")
            client.ltrim(self.global_keyprefix + self._malformed_key, 0, MOST_ENTRIES - 1)

    def give_back(self, tags: Sequence[str]) -> None:
        """Put messages back into their lists, marked as redelivered, so that the first is taken first."""
        last_first = tags[::-1]
        with self.conn_or_acquire() as client:
            for start in range(0, len(tags), GIVE_BACK_MESSAGES):
                some = last_first[start : start + GIVE_BACK_MESSAGES]
                moves = []
                for tag, record in zip(some, client.hmget(self.global_keyprefix + self.unacked_key, some), strict=True):
                    if record is not None:
                        moves += [(key, tag, text) for key, text in self.restored(record)]
                malformed = [move for move in moves if move[0] == self._malformed_key]
                self._move([move for move in moves if move[0] != self._malformed_key], client)
                self._set_aside(malformed, client)

    def _move(
        self, moves: Iterable[tuple[str, str | bytes, str | bytes]], client: Any = None, *, command: str = "RPUSH"
    ) -> None:
        """Let Redis move reserved messages (list, delivery tag, text) to the ends of these lists."""
        moves = list(moves)
        keys = [self.unacked_key, self.unacked_index_key, *(key for key, _, _ in moves)]
        texts = [part for _, tag, text in moves for part in (tag, text)]
        with self.conn_or_acquire(client) as client:
            client.eval(MOVE, len(keys), *(self.global_keyprefix + key for key in keys), command, *texts)

    def server_time(self, client: Any) -> float:
        """Return the server's time in epoch seconds, or this machine's if the server does not tell its own."""
        try:
            seconds, microseconds = client.time()
        except ResponseError:
            return time()
        return float(seconds) + float(microseconds) / 1e6
