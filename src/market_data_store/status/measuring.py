"""Looks at Postgres for the monitor's metrics, in a thread: whether it answers, what it holds, and its feeds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from market_data_store.config import Settings
from market_data_store.errors import DatabaseUnavailable
from market_data_store.logs.repeated import Repeated
from market_data_store.status.database import DatabaseReader, DatabaseStatus
from market_data_store.status.freshness import Rules

logger = logging.getLogger(__name__)

#: Seconds between the end of a look and the next one.
_INTERVAL_S = 1.0
_END_S = 5.0

#: Gets what was read, or None while Postgres does not answer.
OnLook = Callable[[DatabaseStatus | None], None]


@contextmanager
def measuring(settings: Settings, on_look: OnLook) -> Iterator[None]:
    """Look during the block, if a database is set; who else needs Postgres says that it is away."""
    url = settings.database_url or settings.admin_database_url
    if not url:
        yield
        return
    stop = threading.Event()
    reader = DatabaseReader(url, settings.database_quota_bytes, Rules.of(settings))
    thread = threading.Thread(target=_run, args=(reader, on_look, stop), name="measuring", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_END_S)


def _run(reader: DatabaseReader, on_look: OnLook, stop: threading.Event) -> None:
    trouble = Repeated(logger)
    while not stop.is_set():
        try:
            on_look(reader.read())
            trouble.over("Postgres can be looked at again")
        except DatabaseUnavailable:
            on_look(None)
        except Exception as error:  # noqa: BLE001  # the edge of a thread: the monitor goes on, and looks again
            trouble.happened(f"What Postgres holds could not be looked at ({type(error).__name__})")
            on_look(None)
        stop.wait(_INTERVAL_S)
    reader.close()
