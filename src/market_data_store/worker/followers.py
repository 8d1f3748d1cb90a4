"""What follows a message in Celery's canvas: callbacks, the next link of a chain, the end of a group.

The message's rows are written as those of any other message. Then Celery's own tracer gets the result, as if the task
had returned it just now, stores it and sends what follows.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from celery import Task
from celery.app.trace import build_tracer

from market_data_store.app import app
from market_data_store.errors import InvalidMessage
from market_data_store.protocol import TASK
from market_data_store.worker.canvas import are_tasks
from market_data_store.worker.envelope import Envelope
from market_data_store.worker.outage import unsaid

logger = logging.getLogger(__name__)


class _Ending(Task):
    """Ends at once, with the result that it is given."""

    name = TASK
    throws = (InvalidMessage,)

    def run(self, result: Any) -> Any:
        """Return the result, or raise it."""
        if isinstance(result, InvalidMessage):
            raise result
        return result


def follow(envelope: Envelope, embed: dict[str, Any], result: dict[str, Any] | InvalidMessage) -> None:
    """Store the message's result and send what follows; whatever is wrong with that, the message is done."""
    tasks = {name: value for name, value in embed.items() if are_tasks(name, value)}
    request = {
        "id": envelope.task_id,
        "task": TASK,
        "root_id": envelope.task_id,
        **(envelope.lineage or {}),
        "reply_to": envelope.reply_to,
        "correlation_id": envelope.correlation_id,
        "ignore_result": envelope.ignore_result,
        "delivery_info": {},
        **tasks,
    }
    # Its lines and warnings quote values of messages.
    with unsaid("celery.app.trace"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _, info, _, shown = _tracer()(envelope.task_id, (result,), {}, request)
        except Exception as error:  # noqa: BLE001  # the sender may have put anything there; the rows are committed
            kind = type(error).__name__
        else:
            kind = "" if info is None and shown is not None else type(getattr(info, "retval", None)).__name__
    if tasks.keys() != embed.keys():
        logger.warning("Task %s[%s] is done; what follows it is not a task, and was not sent", TASK, envelope.task_id)
    elif kind and not (isinstance(result, InvalidMessage) and kind == InvalidMessage.__name__):
        logger.warning("Task %s[%s] is done; what follows it could not be sent (%s)", TASK, envelope.task_id, kind)


@cache
def _tracer() -> Callable[..., Any]:
    ending = _Ending()
    ending.bind(app)
    tracer: Callable[..., Any] = build_tracer(TASK, ending, app=app)
    return tracer
