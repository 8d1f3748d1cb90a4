"""kombu's record of unacknowledged messages, with acknowledgements that are collected briefly and sent together."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from time import monotonic, time
from typing import Any

from kombu.transport import redis, virtual
from redis.exceptions import OutOfMemoryError, ResponseError

logger = logging.getLogger(__name__)

#: Seconds that an acknowledgement waits for others.
ACK_DELAY_S = 0.01
#: About how many bytes of unacknowledged bodies a channel holds of each queue: the prefetch limit counts messages,
#: whether of one row or of thousands.
RESERVED_BYTES = 8 * 1024 * 1024
#: A larger body counts as one of this size. Otherwise one large message would keep all others from being fetched for as
#: long as it is processed.
_COUNTED_BYTES = RESERVED_BYTES // 4
#: Seconds until acknowledgements that could not be sent are sent again.
ACK_RETRY_S = 1.0
_NO_LIMIT = 1 << 30


class QoS(redis.QoS):
    """Knows which messages are unacknowledged; collects acknowledgements for `ACK_DELAY_S`."""

    #: Whether the message being delivered was recorded when it was fetched.
    is_recorded = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._acks: deque[str] = deque()
        self._ack_deadline = 0.0
        self._is_lost = False
        #: By queue and delivery tag, the size of each body that is held.
        self._sizes: dict[str | None, dict[str, int]] = {}
        super().__init__(*args, **kwargs)

    @property
    def visibility_timeout(self) -> float:
        """The visibility timeout, corrected by what this machine's clock differs from the server's.

        kombu subtracts it from this machine's time to find what is due. Records have the server's time, so a worker an
        hour ahead would take from the others what they are at work on.
        """
        with self.channel.conn_or_acquire() as client:
            ahead_s: float = time() - self.channel.server_time(client)
        return float(self.channel.visibility_timeout) + ahead_s

    def can_consume(self) -> bool:
        """Whether more messages of any queue may be fetched."""
        queues = self.channel.active_queues
        return not queues or any(self.room(queue) for queue in queues)

    def room(self, queue: str) -> int:
        """How many more messages of a queue may be fetched: within the prefetch limit and `RESERVED_BYTES`.

        Each queue has these for itself: what is held of one never keeps those of another from being fetched.
        """
        held = self._sizes.get(queue, {})
        if sum(held.values()) >= RESERVED_BYTES:
            return 0
        return max(0, self.prefetch_count - len(held)) if self.prefetch_count else _NO_LIMIT

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message as unacknowledged, and record it unless the fetch did."""
        size = len(message.body) if isinstance(message.body, bytes | str) else 0
        self._sizes.setdefault(message.queue, {})[delivery_tag] = min(size, _COUNTED_BYTES)
        if self.is_recorded:
            self.is_recorded = False
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge together with others within `ACK_DELAY_S`; at once where no event loop runs."""
        self.let_go(delivery_tag)  # makes room for the next message now
        transport = self._transport
        if transport is None:
            if not self._is_lost:
                logger.warning("Acknowledgements on a lost connection are void; their messages will be redelivered")
            self._is_lost = True
            return
        self._acks.append(delivery_tag)
        now = monotonic()
        if transport.hub is None:
            self._send_acks()
        elif not self._ack_deadline:
            self._ack_deadline = now + 2 * ACK_DELAY_S
            # Only the loop may set its timer, and this may be one of the pool's threads.
            transport.hub.call_soon(transport.hub.call_later, ACK_DELAY_S, self.flush_acks)
        elif now > self._ack_deadline:  # the loop has ended (warm shutdown) or is late
            self.flush_acks()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give back, or drop, at once."""
        super().reject(delivery_tag, requeue)
        self._make_room(delivery_tag)

    def let_go(self, delivery_tag: str) -> None:
        """Forget a message that Redis has moved."""
        virtual.QoS.ack(self, delivery_tag)
        self._make_room(delivery_tag)

    def _make_room(self, delivery_tag: str) -> None:
        for held in list(self._sizes.values()):
            held.pop(delivery_tag, None)

    def flush_acks(self) -> None:
        """Send the collected acknowledgements; keep those that cannot be sent for the next try."""
        try:
            self._send_acks()
        except (*self.channel.connection_errors, ResponseError) as error:
            logger.warning("%d acknowledgements could not be sent (%s)", len(self._acks), type(error).__name__)
            transport = self._transport
            if transport is not None and transport.hub is not None:
                self._ack_deadline = monotonic() + ACK_RETRY_S
                transport.hub.call_later(ACK_RETRY_S, self.flush_acks)

    def _send_acks(self) -> None:
        self._ack_deadline = 0.0
        tags: list[str] = []
        try:
            while True:
                tags.append(self._acks.popleft())
        except IndexError:
            pass
        if not tags or self._transport is None:
            return
        try:
            with self.channel.conn_or_acquire() as client:
                # No MULTI: a full server refuses it. kombu cleans up entries that remain only in the index.
                pipeline = client.pipeline(transaction=False)
                pipeline.hdel(self.unacked_key, *tags).zrem(self.unacked_index_key, *tags).execute()
        except BaseException:
            self._acks.extend(tags)
            raise

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Give back what lost workers had; a full server refuses, and is asked again."""
        if self._takes_only_answers():
            return  # workers do it, and this user may not
        with suppress(OutOfMemoryError):
            self._end_endless_lock()
            super().restore_visible(*args, **kwargs)

    def _takes_only_answers(self) -> bool:
        transport = self._transport
        channels = [] if transport is None else transport.channels
        taken = {queue for channel in channels for queue in channel._active_queues}
        return bool(taken) and taken <= {queue for channel in channels for queue in channel._without_ack}

    def _end_endless_lock(self) -> None:
        # kombu's lock has a short time to live. One without, whoever set it, would keep all workers from this for ever.
        with suppress(ResponseError), self.channel.conn_or_acquire() as client:
            key = self.channel.global_keyprefix + self.unacked_mutex_key
            if not -1 < client.execute_command("PTTL", key) <= self.unacked_mutex_expire * 1_000:
                client.execute_command("EXPIRE", key, self.unacked_mutex_expire)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Give back a message, or set its record aside if that cannot be read."""

        def restore(pipe: Any) -> None:
            record = pipe.hget(self.unacked_key, tag)
            pipe.multi()
            self._remove_from_indices(tag, pipe)
            self.channel.put_back(pipe, self.channel.restored(record) if record else (), leftmost=leftmost)

        with self.channel.conn_or_acquire(client) as client:
            client.transaction(restore, self.unacked_key)

    def restore_unacked(self, client: Any = None) -> None:
        """Give all unacknowledged messages back to their queues, in order."""
        self.flush_acks()
        if not self.channel.reserves:
            super().restore_unacked(client)
            return
        self._flush()
        self.channel.give_back(list(self._delivered))
        self._delivered.clear()
        self._sizes.clear()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The same when the channel ends; it may have only acknowledgements."""
        self.flush_acks()
        super().restore_unacked_once(stderr)

    @property
    def _transport(self) -> Any | None:
        """The transport; None once its connection was closed. A timer may still call then."""
        transport = self.channel.connection
        return None if transport is None or transport.client is None else transport
