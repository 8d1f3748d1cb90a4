"""Says that no worker takes what a client sends: once at WARNING, within five seconds, with what to do.

Asking workers takes a second or two, so a thread asks, and only while messages wait. RabbitMQ knows how many consumers
a queue has, and tells every producer.
"""

from __future__ import annotations

import logging
import threading
import time

from market_data_store.connections.names import causes
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.workers import Workers, unserved
from market_data_store.errors import BrokerUnavailable

logger = logging.getLogger(__name__)

#: Seconds from a message that was sent to the first question.
_FIRST_S = 1.0
#: Seconds between two questions.
_INTERVAL_S = 5.0
#: On RabbitMQ, seconds after which a queue without a consumer is looked at again: a worker may just have lost its
#: connection.
_AGAIN_S = 2.0


class Served:
    """Whether workers take the messages of the inspector's queue. `sent` is for one thread, and takes no time."""

    def __init__(self, inspector: QueueInspector) -> None:
        self._inspector, self._queue = inspector, inspector.queue
        self._workers = Workers(inspector)
        self._may_ask, self._is_said = True, False
        self._ask_at = 0.0
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def sent(self, queue: str) -> None:
        """Note that a message was sent to a queue."""
        now = time.monotonic()
        if queue != self._queue or now < self._ask_at or not self._may_ask or self._stop.is_set():
            return
        self._ask_at = now + _INTERVAL_S
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="store-client-served", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    def _run(self) -> None:
        pause_s = _FIRST_S
        try:
            while not self._stop.wait(pause_s) and self._inspector.waiting():
                self._look()
                pause_s = _INTERVAL_S
        except BrokerUnavailable as error:  # who sends hears of it, unless this user may not ask
            self._may_ask = not _is_refused(error)
        except Exception as error:  # noqa: BLE001  # an answer of another kind costs no more than the warning
            logger.debug("It is not known whether workers take %s (%s)", self._queue, type(error).__name__)
        finally:
            if self._stop.is_set():  # else a question would leave its connection open
                self._inspector.close()

    def _look(self) -> None:
        is_served = self._has_consumers() if self._is_rabbitmq() else bool(self._workers.look())
        if is_served == self._is_said:
            self._is_said = not is_served
            if not is_served and not self._stop.is_set():
                logger.warning("%s", unserved(self._queue))
            elif is_served:
                logger.info("a worker takes %s again", self._queue)

    def _is_rabbitmq(self) -> bool:
        with self._inspector.lent() as connection:
            return bool(connection.transport.driver_type == "amqp")

    def _has_consumers(self) -> bool:
        return bool(self._consumers() or self._stop.wait(_AGAIN_S) or self._consumers())

    def _consumers(self) -> int:
        with self._inspector.lent() as connection, connection.channel() as channel:
            return int(channel.queue_declare(queue=self._queue, passive=True).consumer_count)


def _is_refused(error: BaseException) -> bool:
    # By its name: the driver of Redis may not be installed.
    return any(kind.__name__ == "NoPermissionError" for cause in causes(error) for kind in type(cause).__mro__)
