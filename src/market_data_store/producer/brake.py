"""A client's brake: it reads the queue's depth and waits as `throttle` says."""

from __future__ import annotations

import threading
import time
from typing import Self

from market_data_store.config import settings
from market_data_store.coordinator.queue import QueueInspector, if_answered
from market_data_store.coordinator.watermarks import Watermarks
from market_data_store.errors import Backpressure, BrokerUnavailable
from market_data_store.producer.served import Served
from market_data_store.producer.throttle import Throttle
from market_data_store.producer.told import Told
from market_data_store.producer.waits import Waits

#: `close` leaves the connection behind when another thread still waits for the broker's answer after this time.
_CLOSE_TIMEOUT_S = 3.0
#: Seconds between two counts of held messages, and two looks at what is told of the database.
_HELD_INTERVAL_S = 5.0


class Brake:
    """Holds messages back while the queue is full. Thread-safe: one thread at a time asks the broker.

    With `has_spool`, rows have another place to wait. An unreachable broker then does not block the caller, and the
    depth is read again only after the next message that was sent. `served` says so if no worker takes the messages.
    """

    def __init__(
        self, throttle: Throttle, inspector: QueueInspector, *, has_spool: bool, told: Told | None = None
    ) -> None:
        self._throttle = throttle
        self._inspector = inspector
        self.served = Served(inspector)
        self._has_spool = has_spool
        self._is_broker_away = False
        self._waits = Waits()
        self._held_at = float("-inf")
        self._is_held_full = self._is_database_full = False
        self._told = told or Told("", inspector.queue)
        #: Held while the broker is asked. `sent` and `failed` do without: their callers must not wait for an answer.
        self._asking = threading.Lock()

    @classmethod
    def of(cls, inspector: QueueInspector, capacity: int | None, *, has_spool: bool) -> Self:
        """Make the brake of the inspector's queue; the capacity is that of the settings unless given."""
        throttle = Throttle(capacity or settings().capacities[inspector.queue], Watermarks.of(settings()))
        return cls(throttle, inspector, has_spool=has_spool, told=Told.of(inspector.queue))

    def wait_for_room(self, timeout_s: float) -> None:
        """Wait while the queue is full, and raise `Backpressure` when it still is after `timeout_s`."""
        if not self.wait_to_send(timeout_s, paced=False):
            why = str(self) if self._is_database_full else f"the queue is full: {self}"
            raise Backpressure(
                f"{why}; wait and call again, or let write() wait with on_pressure='block' and a "
                "longer pressure_timeout_s"
            )

    def wait_to_send(self, timeout_s: float, *, paced: bool = True) -> bool:
        """Wait until the next message may be sent; False when the queue is still full after `timeout_s`.

        With `paced=False` only a full queue delays the caller: for rows that do not fill a message yet.
        """
        deadline = time.monotonic() + timeout_s
        with self._waits.wait() as waits:
            while True:
                if self._has_spool and self._is_broker_away:
                    return True
                if not self._read_depth():  # sending will raise it
                    return True
                now = time.monotonic()
                pause_s = self._throttle.pause_s(now)
                if not self._throttle.must_stop:
                    break
                if now >= deadline:
                    return False
                waits(self._why)
                time.sleep(min(pause_s, deadline - now))
        if paced:
            time.sleep(pause_s)
        return True

    def _read_depth(self) -> bool:
        """Read the depth where that is due; False when the broker does not answer."""
        with self._asking:
            now = time.monotonic()
            if self._throttle.wants_look(now):
                try:
                    self._throttle.looked(now, self._looked(now))
                except BrokerUnavailable:
                    self._is_broker_away = True
                    return False
        return True

    def _looked(self, now: float) -> int:
        """Read the depth; a full queue's if held datasets' messages fill their capacity, or the database is full."""
        depth = self._inspector.depth()
        if now >= self._held_at:
            self._held_at = now + _HELD_INTERVAL_S
            self._is_held_full = sum(self._inspector.held().values()) >= settings().held_capacity
            self._is_database_full = self._told.is_database_full()
        is_full = self._is_held_full or self._is_database_full
        return max(depth, self._throttle.capacity) if is_full else depth

    def _why(self) -> str:
        """Say why the caller waits; asks for the workers, which takes a second."""
        with self._asking:
            nobody = if_answered(self._inspector.workers) == []
        return f"{self}{', and no worker takes them' if nobody else ''}"

    def room(self) -> int:
        """How many messages may be re-sent: none while a backlog explains why their results are late.

        Otherwise an outage of Postgres, in which nothing is lost, would fill the queue with copies of its own messages.
        0 also when the broker does not answer.
        """
        try:
            with self._asking:
                depth = self._inspector.depth()
        except BrokerUnavailable:
            return 0
        return max(0, int(self._throttle.capacity * self._throttle.watermarks.ok_at) - depth)

    def sent(self) -> None:
        """Count a message that the broker took."""
        self._is_broker_away = False
        self._throttle.sent(time.monotonic())

    def failed(self) -> None:
        """Note that the broker did not take a message."""
        self._is_broker_away = True

    def close(self) -> None:
        """Close the connection to the broker."""
        self.served.stop()
        if self._asking.acquire(timeout=_CLOSE_TIMEOUT_S):
            try:
                self._inspector.close()
                self._told.close()
            finally:
                self._asking.release()

    def __str__(self) -> str:
        """The queue as far as it is known."""
        if self._is_database_full:
            return "the database is nearly full (database_full, see `mds status`)"
        if self._is_held_full:
            return "the messages of held datasets fill MDS_HELD_CAPACITY (see `mds status`)"
        return f"about {self._throttle.depth:,} messages wait, the capacity is {self._throttle.capacity:,}"
