"""Says in a worker's log, at its start, that Postgres does not answer, and when it does.

A worker needs Postgres only when a message comes. Without this it would be ready and silent, and an operator would
learn of a wrong URL with the first row.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from celery.signals import worker_ready

from market_data_store.config import settings
from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres.connection import connect
from market_data_store.worker.shutdown import is_stopping

logger = logging.getLogger(__name__)

#: Seconds between two tries, and between two lines about them.
_INTERVAL_S = 5.0
_SAY_AGAIN_S = 60.0


@worker_ready.connect(weak=False)
def _look_for_postgres(**_: Any) -> None:
    threading.Thread(target=_until_it_answers, name="database-at-start", daemon=True).start()


def _until_it_answers() -> None:
    said_at: float | None = None
    pause = threading.Event()  # never set
    while not is_stopping():
        try:
            connect(settings().require_database_url()).close()
        except DatabaseUnavailable as error:
            if said_at is None or time.monotonic() - said_at >= _SAY_AGAIN_S:
                said_at = time.monotonic()
                logger.warning("%s; messages wait in the broker until Postgres answers", error)
            pause.wait(_INTERVAL_S)
            continue
        if said_at is not None:
            logger.info("Postgres answers")
        return
