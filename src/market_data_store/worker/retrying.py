"""The writer of a pool process, and its retries: until Postgres takes the write, or the deadline has passed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

from market_data_store.config import settings
from market_data_store.coordinator.backoff import delays
from market_data_store.errors import DatabaseUnavailable, DatasetUnavailable, MessagesSuspected
from market_data_store.logs.repeated import Repeated
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import TASK
from market_data_store.signals import write_retried

_outage = Repeated(logging.getLogger(__name__))

_T = TypeVar("_T")
#: Seconds between tries while Postgres is unreachable, see `delays`.
_FIRST_DELAY_S, _MAX_DELAY_S = 0.1, 5.0


def persistently(attempt: Callable[[], _T]) -> _T:
    """Try until `attempt` succeeds; raises its `DatabaseUnavailable` once MDS_RETRY_DEADLINE_S has passed.

    A `DatasetUnavailable` and a `MessagesSuspected` are raised at once.
    """
    deadline = time.monotonic() + settings().retry_deadline_s
    pauses = delays(_FIRST_DELAY_S, _MAX_DELAY_S)
    while True:
        try:
            result = attempt()
        except (DatasetUnavailable, MessagesSuspected):
            raise  # others must not wait for this one's table, or for one message
        except DatabaseUnavailable as error:
            write_retried.send(sender=TASK, sqlstate_class=error.sqlstate_class)
            # At least one pause, so that a message that keeps going back to the broker does not spin.
            time.sleep(next(pauses))
            if time.monotonic() > deadline:
                raise
            _outage.happened(f"{error}; trying again", kind=error.trouble, cause=error.known_cause)
            continue
        _outage.over("Postgres takes writes again")
        return result


_writers: dict[int, Writer] = {}


def process_writer() -> Writer:
    """The writer of this process. A forked child makes its own."""
    pid = os.getpid()
    if pid not in _writers:
        _writers[pid] = Writer(settings().require_database_url())
    return _writers[pid]
