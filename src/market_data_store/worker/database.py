"""Says in a worker's log, at its start, that Postgres does not answer, and when it does.

A worker needs Postgres only when a message comes. Without this it would be ready and silent, and an operator would
learn of a wrong URL with the first row.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery.signals import worker_ready

from market_data_store.config import settings
from market_data_store.errors import DatabaseUnavailable
from market_data_store.logs.repeated import Repeated
from market_data_store.postgres.connection import connect
from market_data_store.worker.shutdown import is_stopping

logger = logging.getLogger(__name__)

#: Seconds between two tries.
_INTERVAL_S = 5.0


@worker_ready.connect(weak=False)
def _look_for_postgres(**_: Any) -> None:
    threading.Thread(target=_until_it_answers, name="database-at-start", daemon=True).start()


def _until_it_answers() -> None:
    outage = Repeated(logger)
    pause = threading.Event()  # never set
    while not is_stopping():
        try:
            connect(settings().require_database_url()).close()
        except DatabaseUnavailable as error:
            outage.happened(f"{error}; messages wait in the broker until Postgres answers", kind=error.trouble)
            pause.wait(_INTERVAL_S)
            continue
        outage.over("Postgres answers")
        return
