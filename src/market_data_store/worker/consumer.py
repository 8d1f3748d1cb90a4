"""The worker's consumer: messages that Celery would log and discard become dead letters.

These are bodies that cannot be decompressed or decoded, messages that are not tasks, unknown tasks, and headers that
make no sense. Each passes through the pool as a separate `jobs.Job`, so that only pool processes use Postgres, and is
acknowledged when its letter is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.request import logger
from kombu.exceptions import OperationalError

from market_data_store.config import settings
from market_data_store.errors import Reason
from market_data_store.protocol import TASK
from market_data_store.transport.selection import mover_of
from market_data_store.worker import answers  # noqa: F401  # registers its command
from market_data_store.worker.aside import FLOW_S, LOOK_S, Aside, exhausted
from market_data_store.worker.held import HeldDatasets
from market_data_store.worker.jobs import Job
from market_data_store.worker.progress import Progress
from market_data_store.worker.shutdown import expect_results, kill_after
from market_data_store.worker.unusable import UnusableMessage, problem_of
from market_data_store.worker.watch import TURN_S, Watch

#: Seconds to wait before closing: RabbitMQ's quorum queues apply acknowledgements in portions, and forget the rest when
#: the connection closes.
_APPLIED_WITHIN_S = 0.5
#: Task events are collected for this many seconds, and sent in messages of at most this many.
_EVENTS_WITHIN_S = 0.1
_EVENTS_AT_ONCE = 500


class StoreConsumer(Consumer):
    """Celery's consumer, except that it discards no message."""

    _events_wait = False
    #: What this connection to the broker cannot settle.
    aside: Aside

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.held = HeldDatasets(settings().held_probe_s)
        self.progress = Progress()
        super().__init__(*args, **kwargs)
        self.watch = Watch(self, exit_after_s=settings().exit_when_stalled_s)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Celery's message handler, for messages whose headers it can use; the others become dead letters.

        Called at each connection to the broker.
        """
        handle = super().create_task_handler(*args, **kwargs)
        aside = self._new_aside()
        self.watch.start()

        def on_task_received(message: Any) -> Any:
            self.progress.received += 1
            if aside.receives(message):
                return None
            message.ack_log_error = self._settling(message.ack_log_error, message)
            message.reject_log_error = self._settling(message.reject_log_error, message)
            try:
                problem = problem_of(message.headers)
                if problem:
                    return self._keep(message, problem)
                if not aside.turns_left(message):
                    return self._keep(message, exhausted(message), is_task=True)
                return handle(message)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as error:  # noqa: BLE001  # anybody can send a message; none may stop the worker
                kind = type(error).__name__
                return self._keep(message, Reason.of("headers: cannot be processed ({kind})", kind=kind))
            finally:
                # The request has them by now. In the message they would make a cycle that keeps it alive until the
                # next garbage collection: 100 KB each.
                del message.ack_log_error, message.reject_log_error

        return on_task_received

    def _new_aside(self) -> Aside:
        if hasattr(self, "aside"):
            self.aside.close()
        lost = (*self.connection_errors, *self.channel_errors, OperationalError)
        mover = mover_of(self.app, self.task_consumer.channel) if self.hub else None
        limit = settings().max_deliveries
        self.aside = Aside(mover, self.hub, self._on_taken, self.held, lost=lost, max_deliveries=limit)
        self.aside.start()
        if self.hub:  # Celery cancels timers with the connection
            self.progress.turn()
            self.timer.call_repeatedly(TURN_S, self.progress.turn)
            self.timer.call_repeatedly(LOOK_S, self.aside.look)
            self.timer.call_repeatedly(FLOW_S, self.aside.flow_back)
            if self.aside.renew_s is not None:
                self.timer.call_repeatedly(self.aside.renew_s, self.aside.renew)
        return self.aside

    def _on_taken(self, message: Any) -> None:
        """Receive a message as kombu's consumer does."""
        message.accept = self.task_consumer.accept
        if message.errors:
            message._reraise_error(self.task_consumer.on_decode_error)
        else:
            self.task_consumer.on_message(message)

    def _settling(self, settle: Callable[..., None], message: Any) -> Callable[..., None]:
        """Acknowledge or reject, unless the message's connection is lost: then the broker redelivers it.

        On Redis, kombu 5.7.0 raises AttributeError for such a message, and the worker would exit.
        """
        aside = self.aside

        def settled(*args: Any, **kwargs: Any) -> None:
            try:
                settle(*args, **kwargs)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as error:  # noqa: BLE001  # a lost connection can raise anything
                logger.warning(
                    "Could not acknowledge on a lost connection (%s); the message will be redelivered",
                    type(error).__name__,
                )
            finally:
                aside.settled(message)

        return settled

    def on_send_event_buffered(self) -> None:
        """Send task events together, `_EVENTS_WITHIN_S` after the first of them.

        Celery sends them at each turn of its loop, at most 24, and waits for Redis each time: a fifth to two fifths of
        the worker's time. Each event carries its own time, so readers lose no precision.
        """
        if self.hub and not self._events_wait:
            self._events_wait = True
            self.event_dispatcher.buffer_limit = _EVENTS_AT_ONCE
            self.hub.call_later(_EVENTS_WITHIN_S, self._send_events)

    def _send_events(self) -> None:
        self._events_wait = False
        self._flush_events()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Reconnect, also when kombu cannot give back its unacknowledged messages.

        With kombu 5.7.0 and an unreachable Redis, restoring the unacknowledged messages of the closed connection raises
        AttributeError, and the worker would exit. Redis still has the messages and redelivers them.
        """
        self._events_wait = False  # Celery 5.6 forgets its timers
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:  # noqa: BLE001  # a lost connection can raise anything; a new one is opened
            logger.warning("The lost connection could not be closed properly (%s)", type(error).__name__)

    def stop(self) -> None:
        """Begin the worker's shutdown, see `shutdown`."""
        expect_results(self.pool)
        kill_after(self.pool)
        super().stop()

    def shutdown(self) -> None:
        """Close the connection. By now the pool processes have ended, and their messages are acknowledged."""
        try:
            self._flush_events()
        except Exception as error:  # noqa: BLE001  # on a lost connection; events are only for monitoring
            logger.debug("The last events were not sent (%s)", type(error).__name__)
        if self.connection is not None and self.connection.transport.driver_type == "amqp":
            channel = self.task_consumer and self.task_consumer.channel
            if hasattr(channel, "flush_acks"):  # `transport.rabbitmq`'s; the loop that would send them has ended
                channel.flush_acks()
            time.sleep(_APPLIED_WITHIN_S)
        if hasattr(self, "aside"):
            self.aside.close()
        super().shutdown()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Keep a message whose body cannot be decompressed or decoded."""
        self._keep(message, Reason.of("body: cannot be decoded ({kind})", kind=type(exc).__name__))

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Keep a message that is not a task."""
        reason = Reason.of("headers: the message is not a Celery task; send it with send_task('store.write', ...)")
        self._keep(message, reason)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep a message for a task that this worker does not have."""
        name = repr(str((message.headers or {}).get("task"))[:80])
        self._keep(message, Reason.of("task: {} is unknown here; the queue is for 'store.write'", name))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep a task whose headers or content type cannot be used."""
        self._keep(message, Reason.of("headers: {}", str(exc)[:200]))

    def _keep(self, message: Any, reason: Reason, *, is_task: bool = False) -> None:
        unusable = UnusableMessage(message, reason, self.connection_errors, is_task=is_task)
        logger.error("Unusable message %s becomes a dead letter: %s", unusable.id, reason.text)
        self.on_task_request(Job(self.app.tasks[TASK], [unusable], self, lambda: None))
