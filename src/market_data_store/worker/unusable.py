"""Messages that cannot be tasks: a request for `jobs.Job` in the place of each, whatever it holds."""

from __future__ import annotations

from typing import Any

from celery.worker.request import logger

from market_data_store.errors import Reason
from market_data_store.protocol import ENQUEUED_AT_HEADER, TASK
from market_data_store.worker.arrivals import read_header
from market_data_store.worker.headers import Headers, bytes_of, id_by_content, name_or_none
from market_data_store.worker.origins import lane_of, origin_of
from market_data_store.worker.tracing import trace_of

#: A letter's body counts as so many rows.
_ROW_BYTES = 80


class UnusableMessage:
    """A `jobs.PooledRequest` for a message that becomes a dead letter.

    If a producer waits for the result of the task, `is_task`, it gets the reason.
    """

    name = TASK

    def __init__(
        self,
        message: Any,
        reason: Reason,
        connection_errors: tuple[type[Exception], ...],
        *,
        is_task: bool = False,
    ) -> None:
        self.body = bytes_of(message.body)
        self.content_type = name_or_none(message.content_type)
        self.content_encoding = name_or_none(message.content_encoding)
        if isinstance(message.body, str):  # of Celery's own transport
            self.content_encoding = "utf-8"
        self.unusable: Reason | None = reason
        sent = message.headers if isinstance(message.headers, dict) else {}
        properties = message.properties if isinstance(message.properties, dict) else {}
        given = sent.get("id")
        # Without a usable id it is identified by its content, so that a redelivery does not leave a second letter.
        id_ = (name_or_none(given) if isinstance(given, str) else name_or_none(_text(given))) or ""
        replays = sent.get("replays")
        self.headers = Headers(
            id=id_ or id_by_content(self.body),
            compression=name_or_none(sent.get("compression")) or None,
            reply_to=name_or_none(properties.get("reply_to")),
            correlation_id=name_or_none(properties.get("correlation_id")),
            ignore_result=not is_task or sent.get("ignore_result") is True,
            replays=replays if isinstance(replays, dict) else None,
            trace=trace_of(sent),
        )
        self.id = self.headers.id
        taken_at = getattr(message, "taken_at", None)
        self.enqueued_at, self.arrived = read_header(sent.get(ENQUEUED_AT_HEADER), taken_at)
        self.born = None
        self.message = message
        self.delivery_info = {"redelivered": (message.delivery_info or {}).get("redelivered") is True}
        #: As `CoalescedRequest` has them: its lane, how much it adds to a batch, and whether it must not be in one with
        #: others.
        self.lane = lane_of(message)
        self.rows = 1 + len(self.body) // _ROW_BYTES
        self.runs_alone = self.delivery_info["redelivered"] or origin_of(message) is not None
        self._ack, self._reject = message.ack_log_error, message.reject_log_error
        self._connection_errors = connection_errors

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Do nothing: nobody watches it."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Give it back to the broker at the hard time limit."""
        if not soft:
            self.reject(requeue=True)

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float]) -> None:
        """Acknowledge it: its letter is committed."""
        if not self.message.acknowledged:
            self._ack(logger, self._connection_errors)

    def moved(self) -> None:
        """Do nothing: the message knows."""

    def reject(self, requeue: bool) -> None:
        """Give it back to the broker."""
        if not self.message.acknowledged:
            self._reject(logger, self._connection_errors, requeue=requeue)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return str(value)
    except (ValueError, RecursionError):  # an integer of 5,000 digits, or lists in lists
        return None
