"""The worker's consumer: messages that Celery would log and discard become dead letters.

These are bodies that cannot be decompressed or decoded, messages that are not tasks, unknown tasks, and headers that
make no sense. They pass through the pool with others, so that only pool processes use Postgres, and are acknowledged
when their letters are committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from amqp.exceptions import NotAllowed, ResourceLocked
from celery.exceptions import WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.worker.consumer import Consumer
from celery.worker.request import logger
from celery.worker.state import maybe_shutdown
from kombu.exceptions import OperationalError
from vine import promise

from market_data_store.config import settings
from market_data_store.connections.names import refused_for_number
from market_data_store.errors import ConfigurationError, Reason
from market_data_store.protocol import TASK
from market_data_store.transport.moving import MoveRefused
from market_data_store.transport.selection import mover_of
from market_data_store.worker import answers  # noqa: F401  # registers its command
from market_data_store.worker.aside import FLOW_S, LOOK_S, Aside, exhausted
from market_data_store.worker.event_channel import EventChannel
from market_data_store.worker.headers import Unusable, read
from market_data_store.worker.held import HeldDatasets
from market_data_store.worker.lanes import Lanes
from market_data_store.worker.origins import lanes_of
from market_data_store.worker.outage import CELERY_LOGGER, FIRST_PAUSE_S, LONGEST_PAUSE_S, SETTLED_S, Outage, unsaid
from market_data_store.worker.progress import Progress
from market_data_store.worker.shutdown import expect_results, kill_after
from market_data_store.worker.unusable import UnusableMessage
from market_data_store.worker.watch import LOOK_S as WATCH_S
from market_data_store.worker.watch import TURN_S, Watch

#: Seconds to wait before closing: RabbitMQ's quorum queues apply acknowledgements in portions, and forget the rest when
#: the connection closes.
_APPLIED_WITHIN_S = 0.5
#: Seconds to wait while another worker has this one's name.
_NAME_TAKEN_S = 10.0
#: Task events are collected for this many seconds, and sent in messages of at most this many.
_EVENTS_WITHIN_S = 0.1
_EVENTS_AT_ONCE = 500
#: Seconds until a RabbitMQ that takes no more connections is asked again.
_FULL_S = 2.0
#: A worker that waits for its broker ends within so many seconds when it is told to.
_SHUTDOWN_WITHIN_S = 0.5

_OURS = {
    "celery.worker.consumer.control:Control": "market_data_store.worker.control:Control",
    "celery.worker.consumer.delayed_delivery:DelayedDelivery": (
        "market_data_store.worker.delayed_delivery:DelayedDelivery"
    ),
}
#: Workers do not listen to each other: what they would hear, anybody can send, and they have no use for it.
_DEAF_TO_OTHERS = {"without_gossip": True, "without_mingle": True}


class StoreConsumer(Consumer):
    """Celery's consumer, except that it discards no message."""

    class Blueprint(Consumer.Blueprint):
        """Celery's steps, with two of the store's own."""

        default_steps: ClassVar[list[str]] = [_OURS.get(step, step) for step in Consumer.Blueprint.default_steps]

    _events_wait = False
    #: The error by which a message could not be acknowledged or rejected last.
    _lost_by: Exception | None = None
    #: What waits for a batch, and what this connection to the broker cannot settle.
    lanes: Lanes
    aside: Aside

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.held = HeldDatasets(settings().held_probe_s)
        self.progress = Progress()
        self.outage = Outage()
        self._connect_at = 0.0
        options = {**(kwargs.pop("worker_options", None) or {}), **_DEAF_TO_OTHERS}
        super().__init__(*args, worker_options=options, **kwargs)
        self.watch = Watch(self, exit_after_s=settings().exit_when_stalled_s)

    def start(self) -> None:
        """Consume until the worker ends; with status 1 if the broker turns out to be one that cannot be used."""
        try:
            super().start()
        except ConfigurationError as error:
            logger.critical("%s", error)
            raise WorkerShutdown(EX_FAILURE) from None

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long that takes; what keeps it from it is said once."""
        while True:
            while (left_s := self._connect_at - time.monotonic()) > 0:
                maybe_shutdown()
                time.sleep(min(left_s, _SHUTDOWN_WITHIN_S))
            try:
                conn.ensure_connection(
                    lambda error, _: self.outage.failed(error),
                    interval_start=FIRST_PAUSE_S,
                    interval_step=FIRST_PAUSE_S,
                    interval_max=LONGEST_PAUSE_S,
                    callback=maybe_shutdown,
                )
                break
            except NotAllowed as error:  # no more connections: kombu does not try again
                if refused_for_number(error) is None:
                    raise
                self._connect_at = time.monotonic() + max(_FULL_S, self.outage.failed(error))
        self.first_connection_attempt = False
        return conn

    def on_ready(self) -> None:
        """Celery's start-up, and the end of an outage if the connection holds."""
        super().on_ready()
        if self.outage.is_on:
            if self.hub:
                self.timer.call_after(SETTLED_S, self.outage.over)
            else:
                self.outage.over()

    def create_task_handler(self, promise: Any = promise) -> Callable[[Any], None]:
        """Return what handles a message: a task goes to its strategy, and anything else becomes a dead letter.

        Called at each connection to the broker. No error of a message's making leaves the handler: what acknowledges
        and rejects (`_settling`) raises the only ones that do.
        """
        aside = self._new_aside()
        take, callbacks = self.strategies[TASK], self.on_task_message
        call_soon = getattr(self, "call_soon_ack", self.call_soon)  # Celery 5.7's
        self.app.control.mailbox.producer_pool = EventChannel(self)
        self.watch.start()

        def on_task_received(message: Any) -> None:
            self.progress.received += 1
            message.ack_log_error = self._settling(message.ack_log_error, message)
            message.reject_log_error = self._settling(message.reject_log_error, message)
            try:
                if aside.receives(message):
                    return
                if not getattr(message, "is_packed", False):  # Celery's own transport has unpacked the body
                    message.headers.pop("compression", None)
                headers = read(message)
                if not aside.turns_left(message):
                    self._keep(message, exhausted(message), is_task=True)
                    return
                ack = promise(call_soon, (message.ack_log_error,))
                reject = promise(call_soon, (message.reject_log_error,))
                take(message, headers, ack, reject, callbacks)
            except Unusable as error:
                self._keep(message, error.reason, is_task=error.is_task)
            except Exception as error:
                if error is self._lost_by:
                    raise
                kind = type(error).__name__
                self._keep(message, Reason.of("headers: cannot be processed ({kind})", kind=kind))
            finally:
                # The request has them by now. In the message they would make a cycle that keeps it alive until the
                # next garbage collection: 100 KB each.
                del message.ack_log_error, message.reject_log_error

        return on_task_received

    def _new_aside(self) -> Aside:
        before = getattr(self, "aside", None)
        if before is not None:
            before.close()
        lost = (*self.connection_errors, *self.channel_errors, OperationalError)
        mover = mover_of(self.app, self.task_consumer.channel) if self.hub else None
        limit = settings().max_deliveries
        lanes = partial(lanes_of, self.app)
        self.aside = Aside(
            mover, self.hub, self._on_taken, self.held, lanes, lost=lost, max_deliveries=limit, before=before
        )
        self.aside.start()
        if self.hub:  # Celery cancels timers with the connection
            self.progress.turn()
            self.timer.call_repeatedly(TURN_S, self.progress.turn)
            self.timer.call_repeatedly(LOOK_S, self.aside.look)
            self.timer.call_repeatedly(FLOW_S, self.aside.flow_back)
            if mover is not None:
                self.timer.call_repeatedly(WATCH_S, self.watch.count, (mover, (MoveRefused, *lost)))
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

        def settled(_: Any, *args: Any, **kwargs: Any) -> None:
            try:
                settle(self.outage, *args, **kwargs)  # in place of a logger: kombu logs a traceback for each message
            except (*self.connection_errors, *self.channel_errors) as error:
                self._lost_by = error
                raise
            except Exception as error:  # noqa: BLE001  # a lost connection can raise anything
                self.outage.critical("%s", type(error).__name__)
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
        if hasattr(self, "aside"):
            self.aside.lost()
        self._connect_at = time.monotonic() + self.outage.failed(exc)
        try:
            with unsaid(CELERY_LOGGER):  # besides, it would say of each message at work that its task is terminated
                super().on_connection_error_after_connected(exc)
        except Exception as error:  # noqa: BLE001  # a lost connection can raise anything; a new one is opened
            logger.warning("The lost connection could not be closed properly (%s)", type(error).__name__)
        if isinstance(exc, ResourceLocked):
            self._wait_for_name()

    def _wait_for_name(self) -> None:
        """Wait before connecting again: Celery would try it ten times a second, for ever.

        RabbitMQ gives a worker's mailbox to one connection: that of a worker with the same name, or of this one's
        predecessor whose machine has failed, until the broker misses its heartbeats.
        """
        logger.error(
            "Another worker has the name %s, and RabbitMQ allows one; trying again in %.0f s. Start each worker with a "
            "name of its own (-n worker2@%%h)",
            self.hostname,
            _NAME_TAKEN_S,
        )
        self._connect_at = time.monotonic() + _NAME_TAKEN_S

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Try again after a pause."""
        self._connect_at = time.monotonic() + self.outage.failed(exc)

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
        """Keep a message that Celery's own transport could not unpack or decode."""
        self._keep(message, Reason.of("body: cannot be decoded ({kind})", kind=type(exc).__name__))

    def _keep(self, message: Any, reason: Reason, *, is_task: bool = False) -> None:
        unusable = UnusableMessage(message, reason, self.connection_errors, is_task=is_task)
        logger.debug("Unusable message %s becomes a dead letter", unusable.id)  # the pool says which, and why
        self.lanes.add(unusable)
