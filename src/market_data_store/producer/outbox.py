"""The messages that are not yet safe, in order, and the thread that sends them.

A message is safe when the broker has confirmed it or, with results, when its task's result says that its rows are
committed or kept as dead letters. Until then it is here: in the spool if there is one, otherwise in memory. A message
without a result is re-sent with the same task id and the same `enqueued_at`, so that the store does not take its rows
for newer ones.

One thread sends, so messages are sent in the order of writing. No error ends the thread: it logs the error and tries
again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable

from market_data_store.errors import BrokerUnavailable, InvalidMessage
from market_data_store.producer.brake import Brake
from market_data_store.producer.confirming import Confirming
from market_data_store.producer.leaving import at_exit, left, lost
from market_data_store.producer.messages import Gathering, Message, Part, Waiting
from market_data_store.producer.publishing import Publisher
from market_data_store.producer.spool import Spool

logger = logging.getLogger(__name__)

#: Seconds between tries while the broker is unreachable.
_RETRY_INTERVAL_S = 1.0
#: Seconds between tries while the queue is full.
_HOLD_INTERVAL_S = 0.25
#: The most messages sent before results are fetched again.
_SENT_AT_ONCE = 50
#: With a spool, waiting messages are also held in memory up to this size; others are read from it when they are sent.
_IN_MEMORY_BYTES = 32 * 1024 * 1024


class Outbox:
    """Takes rows, and keeps them until they are safe. Thread-safe.

    `brake` counts every message sent. With a spool it also stops sending while the queue is full; without one, `write`
    has waited already.
    """

    def __init__(
        self,
        publisher: Publisher,
        gathering: Gathering,
        *,
        brake: Brake | None,
        spool: Spool | None,
        confirming: Confirming | None,
    ) -> None:
        self._publisher, self._gathering = publisher, gathering
        self._brake = brake
        self._spool, self.confirming = spool, confirming
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._waiting = Waiting(math.inf if spool is None else _IN_MEMORY_BYTES)
        self._urgent = False
        self._failures = 0
        self._error: Exception | None = None
        self._retry_at, self._is_lost_said = 0.0, False
        #: Whether the last try to send failed.
        self.is_away = False
        for message in spool.messages() if spool is not None else ():
            gathering.continue_after(message.enqueued_at)
            if message.sent_at is not None and self.confirming is not None:
                self.confirming.add(message, time.monotonic())
            else:
                self._waiting.add([message])
        at_exit(self, has_spool=spool is not None)
        if self.rows:
            self._start()

    def room(self, dataset: str, defaults: bytes) -> int:
        """How many rows fit into the message that the next rows of this dataset and these defaults are added to."""
        with self._changed:
            return self._gathering.room(dataset, defaults)

    def take(self, dataset: str, defaults: bytes, parts: Iterable[Part], *, columnar: bool = False) -> range:
        """Keep these rows, all or none; returns the numbers of the messages that they filled, for `release`.

        Each `columnar` part is a message. Filled messages are not sent before `release`. Raises `SpoolFull` and
        `SpoolUnavailable`.
        """
        with self._changed:
            if self._stopped:
                raise InvalidMessage("the client is closed; make another StoreClient")
            place = self._gathering.place_tables if columnar else self._gathering.place
            placements = place(dataset, defaults, parts)
            if self._spool is not None:
                self._spool.append(placements)
            first, due = self._waiting.put, self._gathering.next_due
            self._waiting.add(self._gathering.add(placements))
            if self._waiting.put > first:
                self._waiting.released = first
            self._start()
            if self._gathering.next_due < due:  # otherwise each row would wake the thread; `release` wakes it as well
                self._changed.notify_all()
            return range(first, self._waiting.put)

    def release(self, number: float) -> None:
        """Let messages up to this number be sent."""
        with self._changed:
            if self._waiting.released != number + 1:
                self._waiting.released = number + 1
                self._changed.notify_all()

    def until_taken(self, number: int | None = None, timeout_s: float | None = None) -> bool:
        """Wait until the broker has taken this message, or all; False after the time-out. Tries to send at once.

        Raises `BrokerUnavailable`.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            last = self._waiting.put - 1 if number is None else number
            failures = self._failures
            self._urgent |= self._waiting.taken <= last
            self._start()
            self._changed.notify_all()
            while self._waiting.taken <= last:
                if self._stopped or self._failures != failures:
                    raise BrokerUnavailable(self._kept()) from self._error
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return False
                self._changed.wait(None if remaining_s == math.inf else remaining_s)
        return True

    def until_confirmed(self, timeout_s: float, *, bytes_left: int | None = None) -> bool:
        """Wait until the sent messages are safe, or all but `bytes_left` of them; False after the time-out."""
        confirming = self.confirming
        assert confirming is not None  # noqa: S101  # called with results only

        def safe() -> bool:
            if bytes_left is not None:
                return confirming.bytes <= bytes_left
            return not confirming and not self._waiting

        with self._changed:
            return self._changed.wait_for(safe, timeout_s)

    def fill(self) -> None:
        """Let messages that are not full be sent."""
        with self._changed:
            self._waiting.add(self._gathering.due(math.inf))
            self._waiting.released = math.inf
            self._changed.notify_all()

    @property
    def waits(self) -> bool:
        """Whether any message waits to be sent."""
        return bool(self._waiting)

    @property
    def rows(self) -> int:
        """Rows that are not yet safe."""
        with self._changed:
            due = self.confirming.rows if self.confirming is not None else 0
            return self._gathering.rows + self._waiting.rows + due

    def lost(self) -> BrokerUnavailable:
        """Make the error that says which rows are lost when this process ends now; `stop` is then silent."""
        self._is_lost_said = True
        return lost(self._waiting, self._error)

    def stop(self, timeout_s: float) -> None:
        """End the thread, or abandon it when it hangs at the broker; close the spool with the rows that it keeps."""
        left(self)
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._changed:
            rows = self.rows
            if self._spool is not None:
                self._spool.close()
                if rows:
                    kept = f"{rows} rows are kept in {self._spool.path}"
                    logger.warning("%s; the next StoreClient with this spool sends them", kept)
            elif self._waiting and not self._is_lost_said:
                logger.error("%s", self.lost())
            elif self.confirming:
                logger.warning("%d rows were sent, but their results were not awaited", self.confirming.rows)

    def _kept(self) -> str:
        where = "wait in this client, which tries again until it is closed"
        if self._spool is not None:
            where = f"are kept in {self._spool.path} and sent when it is back"
        return f"{self._error or 'the client is closed'}; {self._waiting.rows:,} rows {where}"

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="store-client", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._until_due():
            try:
                self._send()
                self._settle()
            except Exception as error:  # noqa: BLE001  # nothing would be sent once the thread has ended
                self._fail(error)
        self._publisher.close()
        if self.confirming is not None:
            self.confirming.results.close()

    def _until_due(self) -> bool:
        """Wait until there is something to do; False after `stop`."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                self._waiting.add(self._gathering.due(now))
                send_at = fetch_at = math.inf
                if self._waiting.next() is not None:
                    send_at = now if self._urgent else self._retry_at
                if self.confirming:
                    fetch_at = self.confirming.fetch_at
                due = min(send_at, fetch_at)
                if due <= now:
                    return True
                due = min(due, self._gathering.next_due)
                self._changed.wait(None if due == math.inf else due - now)
        return False

    def _send(self) -> None:
        for _ in range(_SENT_AT_ONCE):
            with self._changed:
                now = time.monotonic()
                due = self._urgent or now >= self._retry_at
                message = self._waiting.next()
                if self._stopped or message is None or not due:
                    return
                self._urgent = False
                parts = message.parts or (self._spool.parts(message) if self._spool is not None else [])
            if self._spool is not None and self._brake is not None and not self._brake.wait_to_send(0.0, paced=False):
                self._retry_at = now + _HOLD_INTERVAL_S
                return
            results = self.confirming.results if self.confirming is not None else None
            if results is not None:
                results.prepare()
            self._publisher.publish(message, parts, None if results is None else results.reply_to)
            with self._changed:
                if self._stopped:  # `stop` did not wait for this thread; the spool keeps the message
                    return
                self._taken(message)

    def _taken(self, message: Message) -> None:
        if self.is_away:
            logger.warning("The broker takes messages again")
        self.is_away = False
        self._waiting.take()
        message.sent_at = time.time()
        if self._spool is not None:
            message.parts = []
        if self._brake is not None:
            self._brake.sent()
        self._changed.notify_all()
        if self.confirming is not None:
            self.confirming.add(message, time.monotonic())
            if self._spool is not None:
                self._spool.mark_sent(message)
        elif self._spool is not None:
            self._spool.remove([message])

    def _settle(self) -> None:
        """Fetch results; messages whose deadline has passed are queued again."""
        now = time.monotonic()
        confirming = self.confirming
        with self._changed:
            wanted = confirming.wanted(now) if confirming is not None and not self._stopped else []
        if confirming is None or not wanted:
            return
        results = confirming.fetch(wanted)
        with self._changed:
            safe = [] if self._stopped else confirming.settle(results, time.monotonic())
            self._changed.notify_all()
            if safe and self._spool is not None:
                self._spool.remove(safe)
            is_overdue = not self._stopped and confirming.is_overdue(now)
        if is_overdue:
            room = confirming.room()
            with self._changed:
                overdue = confirming.take_overdue(now, room)
                self._waiting.add(overdue)
            if overdue:
                rows = sum(message.rows for message in overdue)
                logger.warning("%d rows had no result in time and are re-sent", rows)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failures += 1
            self._error = error
            self._retry_at = time.monotonic() + _RETRY_INTERVAL_S
            if self._brake is not None:
                self._brake.failed()
            if not self.is_away:
                logger.warning("%s", self._kept(), exc_info=None if isinstance(error, BrokerUnavailable) else error)
            self.is_away = True
            self._changed.notify_all()
