"""A producer's brake: looks at the queue and waits as `throttle` says."""

from __future__ import annotations

import time

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.errors import BrokerUnavailable
from market_data_store.producer.throttle import Throttle


class Brake:
    """Holds messages back while the queue is full. Not for two threads at once, but for `sent` and `failed`.

    With `spooled`, rows have another place to wait: what cannot be asked does not hold, and is not asked again before a
    message went.
    """

    def __init__(self, throttle: Throttle, inspector: QueueInspector, timeout_s: float, *, spooled: bool) -> None:
        self._throttle = throttle
        self._inspector = inspector
        self._timeout_s = timeout_s
        self._spooled = spooled
        self._broker_away = False

    def wait_to_send(self, *, paced: bool = True) -> bool:
        """Wait until the next message may go; False when the queue is still full after the time-out.

        Without `paced` only a full queue holds up: for rows that do not make a message yet.
        """
        deadline = time.monotonic() + self._timeout_s
        while True:
            if self._spooled and self._broker_away:
                return True
            now = time.monotonic()
            if self._throttle.wants_look(now):
                try:
                    self._throttle.looked(now, self._inspector.depth())
                except BrokerUnavailable:  # sending will say so
                    self._broker_away = True
                    return True
            pause_s = self._throttle.pause_s(now)
            if not self._throttle.must_stop:
                if paced:
                    time.sleep(pause_s)
                return True
            if now >= deadline:
                return False
            time.sleep(min(pause_s, deadline - now))

    def room(self) -> int:
        """How many messages may go a second time: none while a backlog explains why their results are late.

        Else an outage of Postgres, in which nothing is lost, would fill the queue with what it holds already. 0 as well
        when the broker does not say.
        """
        try:
            return max(0, int(self._throttle.capacity * self._throttle.watermarks.ok_at) - self._inspector.depth())
        except BrokerUnavailable:
            return 0

    def sent(self) -> None:
        """A message went."""
        self._broker_away = False
        self._throttle.sent(time.monotonic())

    def failed(self) -> None:
        """The broker did not take a message."""
        self._broker_away = True

    def close(self) -> None:
        """Give the connection back."""
        self._inspector.close()

    def __str__(self) -> str:
        """What is known of the queue."""
        return f"about {self._throttle.depth:,} messages wait, the capacity is {self._throttle.capacity:,}"
