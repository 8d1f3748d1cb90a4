"""Merges waiting messages into one job of the pool; each message remains a separate task.

How it works. The consumer hands each message to the task's strategy, with what `headers` has read of it. `strategy`
makes a Celery `Request` of it, with its events and its acknowledgement, and puts that into the `buffer` of its lane.
From there `lanes` hands the pool one `Job`: the requests' bodies as they came from the broker. The job's callbacks give
each request its outcome.

Nothing waits for company while no batch is at work. Beside one, a batch goes to another free process when it has
enough rows, or when its oldest request has waited long enough. So batches become larger when larger batches pay.

The parent process only keeps the books: bodies are decoded in the pool. Requests end as in Celery: one is acknowledged
after its rows are committed. One whose process died, whose time limit was exceeded, or that cannot be processed now is
put aside (see `aside`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from celery import signals
from celery.worker import state
from celery.worker.request import Request

from market_data_store.errors import Reason
from market_data_store.protocol import ENQUEUED_AT_HEADER, QUEUE
from market_data_store.worker.arrivals import born, read_header
from market_data_store.worker.headers import Headers
from market_data_store.worker.jobs import CoalescedTask
from market_data_store.worker.lanes import Lanes
from market_data_store.worker.origins import lane_of, origin_of
from market_data_store.worker.summary import row_count, summary

logger = logging.getLogger(__name__)


#: For the size of a batch, a message has at least one row for so many bytes: 5,000 rows are at most 20 MB.
_ROW_BYTES = 4_096
#: An empty decoded message. Put where kombu caches the decoded body, it keeps Celery from decoding it in the parent.
_UNDECODED: tuple[Any, ...] = ((), {}, None)


class CoalescedRequest(Request):
    """A request that shares its pool process with others, so the process must not be terminated for this one."""

    unusable: Reason | None = None

    def __init__(self, message: Any, headers: Headers, *, full_batch: int = 0, **kwargs: Any) -> None:
        message._decoded_cache = _UNDECODED
        super().__init__(message, headers=headers.celerys(), **kwargs)
        self.headers = headers
        self.lane = lane_of(message)
        self._delivery_info = {
            "exchange": "",
            "routing_key": self.lane,
            "priority": None,
            "redelivered": (message.delivery_info or {}).get("redelivered") is True,
        }
        self._request_dict = {
            **headers.celerys(),
            "reply_to": headers.reply_to,
            "correlation_id": headers.correlation_id,
            "hostname": self._hostname,
            "delivery_info": self._delivery_info,
        }
        self.runs_alone = self._delivery_info["redelivered"] or origin_of(message) is not None
        sent, taken_at = message.headers.get(ENQUEUED_AT_HEADER), getattr(message, "taken_at", None)
        self.enqueued_at, self.arrived = read_header(sent, taken_at)
        self.born = born(self.enqueued_at, taken_at) if self.lane == QUEUE else None
        # Nobody knows how many rows are in a compressed body: such a message is one batch.
        self.rows = full_batch if headers.compression else row_count(headers.argsrepr, self.body)
        # For events, logs and `inspect`, which otherwise show a foreign sender's rows: the first 1,024 characters.
        self._argsrepr = summary(headers.argsrepr, headers.kwargsrepr, self.body, self.rows)
        # A batch of few rows may be large.
        self.rows = max(self.rows, len(self.body or b"") // _ROW_BYTES)
        self._kwargsrepr = "{...}" if headers.kwargsrepr not in ("", "{}") else "{}"

    def revoked(self) -> bool:
        """False: nobody but its sender decides about a message, and not by its id."""
        return False

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Refuse: the other requests in its batch would be terminated with it."""
        logger.warning("Task %s[%s] is being written with others and cannot be terminated", self.name, self.id)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Do nothing after a lost connection: the batch is committed, and its redelivery changes nothing."""

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


def strategy(task: CoalescedTask, app: Any, consumer: Any, **_: Any) -> Callable[..., None]:
    """Take messages into their lanes; called at each connection to the broker."""
    lanes = consumer.lanes = Lanes(task, consumer)
    batch_rows = task.batch_rows
    options = {
        "app": app,
        "hostname": consumer.hostname,
        "eventer": consumer.event_dispatcher,
        "task": task,
        "connection_errors": consumer.connection_errors,
    }

    def on_message(message: Any, headers: Headers, ack: Any, reject: Any, callbacks: Iterable[Any]) -> None:
        request = CoalescedRequest(
            message, headers, full_batch=batch_rows, body=message.body, on_ack=ack, on_reject=reject, **options
        )
        signals.task_received.send(sender=consumer, request=request)
        request.send_event(
            "task-received",
            name=request.name,
            args=request.argsrepr,
            kwargs=request.kwargsrepr,
            root_id=headers.root_id,
            parent_id=headers.parent_id,
            retries=headers.retries,
            eta=None,
            expires=None,
        )
        state.task_reserved(request)
        for callback in callbacks:
            callback(request)
        lanes.add(request)

    return on_message
