"""The questions that a worker answers over the broker, and no more: a broadcast changes nothing of what is written.

Of Celery's commands those stay that Flower, health and `mds status` ask. The others change time limits, the pool or the
queues that are consumed, drop tasks or end workers, and anybody can send them who reaches the broker;
MDS_REMOTE_CONTROL=true allows them. What is not a question in Celery's form is dropped.
"""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any

import msgspec
from celery.worker.consumer.control import Control as Stock
from celery.worker.pidbox import Pidbox
from kombu.matcher import match
from kombu.pidbox import Node

from market_data_store.config import settings
from market_data_store.worker.headers import MAX_NAME

logger = logging.getLogger(__name__)

#: Celery's commands that only tell something; the last two are what Flower sends for its events.
QUESTIONS = frozenset(
    {
        "active",
        "active_queues",
        "clock",
        "conf",
        "ping",
        "query_task",
        "registered",
        "report",
        "reserved",
        "revoked",
        "scheduled",
        "stats",
        "enable_events",
        "heartbeat",
    }
)
#: The arguments that a question may have.
_ARGUMENTS = {"query_task": ("ids",), "conf": ("with_defaults",)}
#: At most one line in so many seconds says that broadcasts are dropped.
_SAID_EVERY_S = 60.0

_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]


class _ReplyTo(msgspec.Struct, frozen=True):
    exchange: _Name
    routing_key: _Name


class _Broadcast(msgspec.Struct, frozen=True):
    """A control message, as kombu's mailbox sends it."""

    method: _Name
    arguments: dict[str, Any] | None = None
    destination: Annotated[list[_Name], msgspec.Meta(max_length=10_000)] | None = None
    pattern: _Name | None = None
    matcher: _Name | None = None
    reply_to: _ReplyTo | None = None
    ticket: _Name | None = None

    def is_for(self, hostname: str) -> bool:
        """Whether the worker of this name is asked."""
        if self.destination:
            return hostname in self.destination
        if self.pattern and self.matcher in ("glob", "pcre"):
            # A pattern of the sender's own could keep `re` busy for ever.
            return self.matcher == "glob" and bool(match(hostname, self.pattern, "glob"))
        return True


class QuestionNode(Node):
    """kombu's node, which runs whatever command it is sent; this one answers questions."""

    handlers: dict[str, Any]
    _said_at = float("-inf")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not settings().remote_control:
            self.handlers = {
                name: handler
                for name, handler in self.handlers.items()
                if name in QUESTIONS or handler.__module__ != "celery.worker.control"
            }

    def handle_message(self, body: Any, message: Any = None) -> None:
        """Answer, if this worker is asked."""
        try:
            asked = msgspec.convert(body, _Broadcast)
        except (msgspec.ValidationError, RecursionError):
            self.drop("it is malformed")
            return
        if not asked.is_for(self.hostname):
            return
        if asked.method not in self.handlers:
            self.drop(f"{asked.method!r} is not among the commands that this worker takes")
            return
        if asked.reply_to is not None and asked.reply_to.exchange != self.mailbox.reply_exchange.name:
            self.drop("it asks for an answer to somewhere else")
            return
        arguments = asked.arguments or {}
        if asked.method in QUESTIONS:
            taken = _ARGUMENTS.get(asked.method, ())
            arguments = {name: value for name, value in arguments.items() if name in taken}
        reply_to = None if asked.reply_to is None else msgspec.structs.asdict(asked.reply_to)
        self.dispatch(asked.method, arguments, reply_to, asked.ticket)

    def drop(self, why: str) -> None:
        """Say that a broadcast is dropped, now and then."""
        if time.monotonic() - self._said_at > _SAID_EVERY_S:
            self._said_at = time.monotonic()
            logger.warning("A control message was dropped: %s", why)


class _Questions(Pidbox):
    def __init__(self, c: Any) -> None:
        c.app.control.mailbox.node_cls = QuestionNode
        super().__init__(c)

    def start(self, c: Any) -> None:
        super().start(c)
        self.consumer.on_decode_error = self._on_decode_error

    def on_message(self, body: Any, message: Any) -> None:
        self._forward_clock()
        try:
            self.node.handle_message(body, message)
        except Exception as error:  # noqa: BLE001  # anybody can ask; an answer that cannot be sent ends no worker
            logger.warning("A control message could not be answered (%s)", type(error).__name__)

    def _on_decode_error(self, message: Any, error: Exception) -> None:
        self.node.drop(f"it cannot be decoded ({type(error).__name__})")


class Control(Stock):
    """Celery's step, with this mailbox."""

    name = "Store-Control"

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self.box = _Questions(c)
        self.start, self.stop, self.shutdown = self.box.start, self.box.stop, self.box.shutdown
