"""The worker's consumer: what Celery would log and throw away becomes a dead letter.

That is a body that cannot be decompressed or decoded, a message that is no task, a task that nobody knows, and
headers that make no sense. Each goes through the pool as a `jobs.Job` of its own, so that Postgres is spoken to
there alone, and is acknowledged when the letter is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.request import logger

from market_data_store.errors import Reason
from market_data_store.protocol import TASK
from market_data_store.worker.jobs import Job
from market_data_store.worker.shutdown import expect_results, kill_after
from market_data_store.worker.unusable import UnusableMessage, problem_of

#: RabbitMQ's quorum queues apply acknowledgements some at a time, and forget the rest when the connection closes.
_APPLIED_WITHIN_S = 0.5
#: Events of tasks gather for so many seconds, and go in messages of so many.
_EVENTS_WITHIN_S = 0.1
_EVENTS_AT_ONCE = 500


class StoreConsumer(Consumer):
    """Celery's consumer, but nothing is thrown away."""

    _events_wait = False

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Celery's handler of messages, for those whose headers it can work with."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            message.ack_log_error = self._settling(message.ack_log_error)
            message.reject_log_error = self._settling(message.reject_log_error)
            try:
                problem = problem_of(message.headers)
                return self._keep(message, problem) if problem else handle(message)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as error:  # noqa: BLE001  # a message is anybody's, and must not stop the worker
                kind = type(error).__name__
                return self._keep(message, Reason.of("headers: cannot be dealt with ({kind})", kind=kind))
            finally:
                # The request has them by now; in the message they would keep it alive, until the garbage collector
                # comes by: 100 KB each.
                del message.ack_log_error, message.reject_log_error

        return on_task_received

    def _settling(self, settle: Callable[..., None]) -> Callable[..., None]:
        """Acknowledge or reject, unless the message's connection is gone: then the broker delivers it again.

        On Redis, kombu 5.7.0 raises AttributeError for such a message, and the worker would exit.
        """

        def settled(*args: Any, **kwargs: Any) -> None:
            try:
                settle(*args, **kwargs)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as error:  # noqa: BLE001  # whatever a connection that is gone does
                logger.warning("A message of a lost connection comes again (%s)", type(error).__name__)

        return settled

    def on_send_event_buffered(self) -> None:
        """Events of tasks go together, `_EVENTS_WITHIN_S` after the first of them.

        Celery sends them at each turn of its loop, 24 at most, and waits for Redis each time: a fifth to two fifths of
        the worker's time. Each event has its own time, so that it is as exact to who reads it.
        """
        if self.hub and not self._events_wait:
            self._events_wait = True
            self.event_dispatcher.buffer_limit = _EVENTS_AT_ONCE
            self.hub.call_later(_EVENTS_WITHIN_S, self._send_events)

    def _send_events(self) -> None:
        self._events_wait = False
        self._flush_events()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Reconnect, also where kombu cannot give back what it holds.

        With kombu 5.7.0 and a Redis that is gone, restoring the unacknowledged messages of the closed connection
        raises AttributeError, and the worker would exit; Redis itself still has them, and delivers them again.
        """
        self._events_wait = False  # Celery 5.6 forgets its timers
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:  # noqa: BLE001  # whatever a connection that is gone does, another is opened
            logger.warning("The lost connection could not be closed properly (%s)", type(error).__name__)

    def stop(self) -> None:
        """The worker ends: see `shutdown`."""
        expect_results(self.pool)
        kill_after(self.pool)
        super().stop()

    def shutdown(self) -> None:
        """The processes have ended, and what they wrote is acknowledged; close the connection."""
        try:
            self._flush_events()
        except Exception as error:  # noqa: BLE001  # of a connection that is gone; events are for watching alone
            logger.debug("The last events were not sent (%s)", type(error).__name__)
        if self.connection is not None and self.connection.transport.driver_type == "amqp":
            channel = self.task_consumer and self.task_consumer.channel
            if hasattr(channel, "flush_acks"):  # of `transport.rabbitmq`; the loop that would send them has ended
                channel.flush_acks()
            time.sleep(_APPLIED_WITHIN_S)
        super().shutdown()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A body that cannot be decompressed or decoded."""
        self._keep(message, Reason.of("body: cannot be decoded ({kind})", kind=type(exc).__name__))

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """A message that is no task."""
        reason = Reason.of("headers: the message is no Celery task; send it with send_task('store.write', ...)")
        self._keep(message, reason)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task that this worker does not have."""
        name = repr(str((message.headers or {}).get("task"))[:80])
        self._keep(message, Reason.of("task: {} is unknown here; the queue is for 'store.write'", name))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task whose headers or content type cannot be used."""
        self._keep(message, Reason.of("headers: {}", str(exc)[:200]))

    def _keep(self, message: Any, reason: Reason) -> None:
        unusable = UnusableMessage(message, reason, self.connection_errors)
        logger.error("Unusable message %s becomes a dead letter: %s", unusable.id, reason.text)
        self.on_task_request(Job(self.app.tasks[TASK], [unusable], self, lambda: None))
