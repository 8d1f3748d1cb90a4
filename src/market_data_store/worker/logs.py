"""Makes a worker's log one: what Celery would set up, print or name in its own way."""

from __future__ import annotations

import logging
from typing import Any

from billiard import current_process
from celery.apps import worker as celery_worker
from celery.signals import celeryd_init, setup_logging, worker_process_init

from market_data_store.config.starting import begin_log
from market_data_store.logs import process

logger = logging.getLogger(__name__)


@setup_logging.connect(weak=False)
def _keep_our_log(logfile: Any = None, **_: Any) -> None:
    """Let Celery set up no log of its own: it does not if anybody hears this signal."""
    begin_log("worker")
    if logfile:
        logger.warning("--logfile %s is not used: the log goes to standard error", logfile)


@celeryd_init.connect(weak=False)
def _print_nothing(instance: Any, **_: Any) -> None:
    """Print no banner, and log what Celery would print when it is told to end."""
    instance.quiet = True
    celery_worker.safe_say = _said


def _said(text: str, *_: Any) -> None:
    process.at_signal(text)


@worker_process_init.connect(weak=False)
def _rename(**_: Any) -> None:
    """Name a pool process by its number, which its successor gets."""
    process.rename(f"worker/{getattr(current_process(), 'index', 0) + 1}")
