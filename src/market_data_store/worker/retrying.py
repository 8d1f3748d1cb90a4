"""The writer of a pool process, tried until Postgres takes the write or the deadline is over."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from market_data_store.config import settings
from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import TASK
from market_data_store.signals import write_retried

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
#: Seconds between tries while Postgres is away: doubled each time, and anywhere between half and all of it, so that
#: the processes do not come back in step.
_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 5.0


def persistently(attempt: Callable[[], _T]) -> _T:
    """Try until MDS_RETRY_DEADLINE_S is over, then let `DatabaseUnavailable` out."""
    deadline = time.monotonic() + settings().retry_deadline_s
    delay_s = _FIRST_DELAY_S
    while True:
        try:
            return attempt()
        except DatabaseUnavailable as error:
            write_retried.send(sender=TASK, sqlstate_class=error.sqlstate_class)
            pause_s = delay_s * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
            # One pause at least, so that a message that goes back and forth does not spin.
            time.sleep(pause_s)
            if time.monotonic() > deadline:
                raise
            logger.warning("%s; trying again", error)
            delay_s = min(delay_s * 2, _MAX_DELAY_S)


_writers: dict[int, Writer] = {}


def process_writer() -> Writer:
    """The writer of this process; a fork uses none of its parent's."""
    pid = os.getpid()
    if pid not in _writers:
        _writers[pid] = Writer(settings().require_database_url())
    return _writers[pid]
