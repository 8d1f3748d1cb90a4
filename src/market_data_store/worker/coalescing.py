"""Merges waiting messages into one job of the pool; each message remains a separate task.

How it works. Celery's own strategy (`celery.worker.strategy.default`) makes a `Request` of each message, with its
events, its revocation and its acknowledgement, and hands it to the consumer. `strategy` runs that code, but with a
proxy of the consumer (`_ConsumerProxy`) that puts the request into a `_Buffer`. When a pool process is free, and the
buffer holds enough rows or its oldest request has waited long enough, the buffer hands the pool one `Job`: the
requests' bodies as they came from the broker. The job's callbacks give each request its own outcome.

While all processes are busy the buffer grows, so batches become larger when larger batches pay.

The parent process only keeps the books: bodies are decoded in the pool. Requests end as in Celery: one is acknowledged
after its rows are committed. One whose process died, whose time limit was exceeded, or that cannot be processed now is
put aside (see `aside`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker import state
from celery.worker.request import Request
from celery.worker.strategy import default

from market_data_store.errors import Reason
from market_data_store.protocol import ENQUEUED_AT_HEADER
from market_data_store.worker.arrivals import ARRIVED, read_header
from market_data_store.worker.aside import Aside, origin_of
from market_data_store.worker.envelope import GiveBack, Hold
from market_data_store.worker.jobs import CoalescedTask, Job
from market_data_store.worker.shutdown import is_stopping
from market_data_store.worker.summary import row_count, summary
from market_data_store.worker.unusable import id_by_content

logger = logging.getLogger(__name__)


#: An empty decoded message. Put where kombu caches the decoded body, it keeps Celery from decoding it in the parent.
_UNDECODED: tuple[Any, ...] = ((), {}, None)


class CoalescedRequest(Request):
    """A request that shares its pool process with others, so the process must not be terminated for this one."""

    unusable: Reason | None = None
    #: kombu has decompressed the body.
    compression: str | None = None
    #: Set when it leaves its batch to be run as an ordinary task.
    aside: Aside | None = None

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(message, *args, **kwargs)
        self.runs_alone = self._delivery_info["redelivered"] or origin_of(message) is not None
        sent, taken_at = self._request_dict.get(ENQUEUED_AT_HEADER), getattr(message, "taken_at", None)
        self.enqueued_at, self.arrived = read_header(sent, taken_at)
        # For Celery's own tracer, which hands the task these headers.
        self._request_dict |= {ENQUEUED_AT_HEADER: self.enqueued_at, ARRIVED: self.arrived}
        self.rows = row_count(self.argsrepr, self.body)
        # For events, logs and `inspect`, which otherwise show a foreign sender's rows: the first 1,024 characters.
        self._argsrepr = summary(self.argsrepr, self.kwargsrepr, self.body, self.rows)
        self._kwargsrepr = "{...}" if self.kwargsrepr not in ("", "{}") else "{}"

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Refuse: the other requests in its batch would be terminated with it."""
        logger.warning("Task %s[%s] is being written with others and cannot be terminated", self.name, self.id)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Do nothing after a lost connection: the batch is committed, and its redelivery changes nothing."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Put the message aside if the task says so; otherwise as Celery."""
        error = exc_info.exception
        reason = getattr(getattr(error, "exc", error), "reason", None)
        if self.aside is None or not isinstance(reason, GiveBack | Hold):
            return super().on_failure(exc_info, *args, **kwargs)
        if isinstance(reason, Hold):
            self.aside.hold([(self, reason)])
        else:
            logger.warning("Task %s[%s] goes back to the broker: %s", self.name, self.id, reason.reason)
            self.aside.give_back([(self, reason)])
        return None

    def moved(self) -> None:
        """Its message is in another queue: it is done with here."""
        state.task_ready(self)
        self.acknowledged = True
        self.send_event("task-rejected", requeue=True)

    def reject(self, requeue: bool = False) -> None:
        """Give it back to the broker."""
        state.task_ready(self)
        super().reject(requeue)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Give the message back first: Celery 5.6 would drop it at its hard time limit."""
        if not soft:
            self.reject(requeue=True)
        super().on_timeout(soft, timeout)


def strategy(task: CoalescedTask, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's default strategy with a buffer for the requests; called at each connection to the broker."""
    buffer = _Buffer(task, consumer)
    # The pool process logs one line a batch; a line a message would cost more than the message.
    handle = default(task, app, _ConsumerProxy(consumer, buffer), info=logger.debug, **options)

    def on_message(message: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
        if body is None:  # protocol 2: the body is still encoded
            message._decoded_cache = _UNDECODED
        else:  # protocol 1 demands no id; where there are headers, they win
            given = {**body, **(message.headers or {})}.get("id")
            if not isinstance(given, str) or not given:
                body["id"] = id_by_content(message.body)
                message.headers.pop("id", None)
        return handle(message, body, *args, **kwargs)

    return on_message


class _ConsumerProxy:
    """Stands in for the consumer: puts requests that are ready to run into the buffer instead of the pool."""

    #: A rate limit would delay single messages; here the batch size is the limit.
    disable_rate_limits = True

    def __init__(self, consumer: Any, buffer: _Buffer) -> None:
        self._consumer = consumer
        self._buffer = buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def on_task_request(self, request: Any) -> None:
        self._buffer.add(request)

    def apply_eta_task(self, request: Any) -> None:
        state.task_reserved(request)
        self._buffer.add(request)
        self._consumer.qos.decrement_eventually()


class _Buffer:
    """The requests of one connection to the broker that wait for a batch.

    Whatever waits here is full, is due, or has a timer: nothing waits for the next message to arrive. When the
    connection is lost its content is void: the broker redelivers the messages.
    """

    def __init__(self, task: CoalescedTask, consumer: Any) -> None:
        self._task = task
        self._consumer = consumer
        # Read once: the task takes them from the settings, and they are needed at each message.
        self._batch_rows, self._batch_messages = task.batch_rows, task.batch_messages
        self._requests: list[tuple[Any, int]] = []
        self._rows = 0
        self._jobs = 0
        self._due = False
        self._timed = False

    def add(self, request: Any) -> None:
        if request.runs_alone:
            # Its last turn ended badly. In case this message was the cause, it must not affect others again.
            self._hand_over([request])
            return
        self._requests.append((request, request.rows))
        self._rows += request.rows
        if self._is_full():
            self._flush()
        else:
            self._set_timer()

    def _set_timer(self) -> None:
        if not self._timed:
            self._timed = True
            self._consumer.timer.call_after(self._task.flush_interval_s, self._on_due)

    def _on_due(self) -> None:
        self._timed = False
        self._due = True
        self._flush()

    def _flush(self) -> None:
        while (
            self._requests
            and (self._due or self._is_full())
            and self._jobs < self._consumer.pool.num_processes
            and not is_stopping()
        ):
            self._hand_over(self._taken())
        if not self._requests:
            self._due = False
        elif not self._due and not self._is_full():  # what a full batch left
            self._set_timer()

    def _is_full(self) -> bool:
        return self._rows >= self._batch_rows or len(self._requests) >= self._batch_messages

    def _taken(self) -> list[Any]:
        rows = end = 0
        most = min(len(self._requests), self._batch_messages)
        while end < most and rows < self._batch_rows:
            if end and self._requests[end][1] >= self._batch_rows:
                break  # a large message takes long, and the ones before it must not wait for it
            rows += self._requests[end][1]
            end += 1
        taken = [request for request, _ in self._requests[:end]]
        del self._requests[:end]
        self._rows -= rows
        return taken

    def _hand_over(self, requests: list[Any]) -> None:
        self._jobs += 1
        self._consumer.on_task_request(Job(self._task, requests, self._consumer, self._on_done))

    def _on_done(self) -> None:
        self._jobs -= 1
        self._flush()
