"""Messages that cannot be tasks: what is wrong with them, and a request for `jobs.Job` in their place."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from celery.worker.request import logger

from market_data_store.errors import Reason
from market_data_store.protocol import ENQUEUED_AT_HEADER, TASK
from market_data_store.worker.arrivals import read_header
from market_data_store.worker.aside import Aside


def problem_of(headers: Any) -> Reason | None:
    """What Celery could not handle in these headers; None if they are usable."""
    if not isinstance(headers, dict) or "task" not in headers:
        return None  # not a task, or one of protocol 1: Celery finds out
    for name in ("task", "id"):
        if not isinstance(headers.get(name), str) or not headers[name]:
            found = repr(str(headers.get(name))[:80])
            return Reason.of("{} is not a string; send the message with Celery", found).at(name)
    for name in ("eta", "expires"):
        value = headers.get(name)
        try:
            if value is not None:
                datetime.fromisoformat(value).astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            return Reason.of("{} is not a time", repr(str(value)[:80])).at(name)
    return None


def id_by_content(body: str | bytes | None) -> str:
    """Return the id of a message that was sent without one: each delivery of it has the same."""
    content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body or b"")
    return f"sha256:{sha256(content).hexdigest()}"


class UnusableMessage:
    """A `jobs.PooledRequest` for a message that becomes a dead letter.

    If a producer waits for the result of the task, `is_task`, it gets the reason.
    """

    name = TASK
    aside: Aside | None = None

    def __init__(
        self,
        message: Any,
        reason: Reason,
        connection_errors: tuple[type[Exception], ...],
        *,
        is_task: bool = False,
    ) -> None:
        body = message.body or b""
        self.content_type, self.content_encoding = message.content_type, message.content_encoding
        if isinstance(body, str):
            body, self.content_encoding = body.encode("utf-8", "surrogatepass"), "utf-8"
        self.body = bytes(body)
        self.unusable: Reason | None = reason
        self.request_dict = dict(message.headers) if isinstance(message.headers, dict) else {}
        self.ignore_result = not is_task or bool(self.request_dict.get("ignore_result"))
        properties = message.properties or {}
        self.request_dict |= {name: properties.get(name) for name in ("reply_to", "correlation_id")}
        # kombu has decompressed the body, unless that is what went wrong.
        self.compression = self.request_dict.get("compression") if message.errors else None
        # Without an id it is identified by its content, so that a redelivery does not leave a second letter.
        self.id = str(self.request_dict.get("id") or id_by_content(self.body))
        taken_at = getattr(message, "taken_at", None)
        self.enqueued_at, self.arrived = read_header(self.request_dict.get(ENQUEUED_AT_HEADER), taken_at)
        self.message = message
        self.delivery_info = message.delivery_info
        self._ack, self._reject = message.ack_log_error, message.reject_log_error
        self._connection_errors = connection_errors

    def revoked(self) -> bool:
        """False: there is no task that could be revoked."""
        return False

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
