"""Counts the fields of rows that their datasets do not know, and stores the counts now and then.

A thread of the pool process stores them over a connection of its own, which it closes: no write waits for it. What is
counted is lost only if the process is killed within the interval.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from celery.signals import worker_process_shutdown, worker_shutdown

from market_data_store.config import settings
from market_data_store.errors import MarketDataStoreError
from market_data_store.logs.repeated import Repeated
from market_data_store.postgres import unknown_fields
from market_data_store.postgres.connection import connect, first_line
from market_data_store.wire.seen import Seen, add_seen

logger = logging.getLogger(__name__)
_trouble = Repeated(logger)

#: Seconds from the first sight of a field to the first time that it is stored, and between two times.
_FIRST_S, _INTERVAL_S = 0.5, 5.0

#: What was seen and is not stored, by dataset and name. All of these belong to `_lock`.
_seen: dict[str, dict[str, Seen]] = {}
_lock = threading.Lock()
_timer: threading.Timer | None = None
_stored_at = float("-inf")


def heard(dataset: str, seen: Mapping[str, Seen]) -> None:
    """Count what was seen in rows of a dataset; stores nothing yet."""
    if seen:
        with _lock:
            add_seen(_seen.setdefault(dataset, {}), seen)
            _start()


def _start() -> None:
    global _timer  # one for the process
    if _timer is None:
        _timer = threading.Timer(max(_FIRST_S, _stored_at + _INTERVAL_S - time.monotonic()), store)
        _timer.daemon = True
        _timer.start()


@worker_process_shutdown.connect(weak=False)
@worker_shutdown.connect(weak=False)
def store(**_: Any) -> None:
    """Store what is counted; what cannot be stored is counted on, and tried again."""
    global _timer, _stored_at  # as above
    with _lock:
        taken = dict(_seen)
        _seen.clear()
        _timer, _stored_at = None, time.monotonic()
    if not taken:
        return
    try:
        with connect(settings().require_database_url()) as connection:
            unknown_fields.add(connection, taken)
    except (psycopg.Error, MarketDataStoreError) as error:
        reason = first_line(error) if isinstance(error, psycopg.Error) else str(error)
        _trouble.happened(f"the counts of unknown fields cannot be stored: {reason}; trying again")
        with _lock:
            for dataset, seen in taken.items():
                add_seen(_seen.setdefault(dataset, {}), seen)
            _start()
    else:
        _trouble.over("The counts of unknown fields are stored again")
