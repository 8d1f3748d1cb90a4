"""Stores the results of messages for whoever waits for them; says once when that does not work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.app.task import Context

from market_data_store.logs.repeated import Repeated
from market_data_store.worker.envelope import Envelope
from market_data_store.worker.outage import said_of

logger = logging.getLogger(__name__)

#: After a result that could not be stored none is tried for so many seconds: each try may take several, and the results
#: of a batch would hold up the next.
_PAUSE_S = 1.0


class ResultStore:
    """The store of a pool process. What is not stored a client asks for by sending its rows again."""

    def __init__(self) -> None:
        self._again_at = 0.0
        self._lost = 0
        self._outage = Repeated(logger)

    def store(self, mark: Callable[..., None], task: str, envelope: Envelope, value: Any, **options: Any) -> None:
        """Let the backend's `mark` store a result, if anybody wants it."""
        if envelope.ignore_result:
            return
        if self._lost and time.monotonic() < self._again_at:
            self._lost += 1
            return
        request = Context(
            id=envelope.task_id,
            task=task,
            reply_to=envelope.reply_to,
            correlation_id=envelope.correlation_id,
            ignore_result=False,
        )
        try:
            mark(envelope.task_id, value, request=request, **options)
        except Exception as error:  # noqa: BLE001  # a backend raises whatever its driver raises; the rows are committed all the same
            reason = said_of(error)
            self._outage.happened(
                f"Results cannot be stored ({reason}); rows are written all the same", kind=reason.partition(":")[0]
            )
            self._lost += 1
            self._again_at = time.monotonic() + _PAUSE_S
            return
        if self._lost:
            self._outage.over(f"Results are stored again; {self._lost} were not")
            self._lost = 0
