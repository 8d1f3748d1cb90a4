"""Graceful shutdown of a worker: wait for running jobs and acknowledge them, up to a deadline.

Celery's warm shutdown has two gaps.

A pool process that has taken a job says so in a message. When the consumer stops, Celery forgets every job whose
message it has not read yet, so nobody reads its result either: the rows are committed, but their messages go back to
the broker, and the process waits 30 s for its result to be read (billiard's `_ensure_messages_consumed`). Under load
this happened in 8 of 19 shutdowns, each of which then took 32 s. `expect_results` makes Celery wait for such jobs.

And Celery waits for a job until it ends, up to its time limit. `kill_after` sets a deadline: Postgres rolls back the
transaction of a killed process, and its messages go back to the broker.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

from celery.worker import state

logger = logging.getLogger(__name__)

#: Seconds that jobs get. A PaaS kills 30 s after SIGTERM, `mds up` after 25 s; giving messages back takes about two.
PATIENCE_S = 18.0


def is_stopping() -> bool:
    """Whether the worker was told to end."""
    return state.should_stop is not None or state.should_terminate is not None


def expect_results(pool: Any) -> None:
    """Keep the pool from forgetting jobs that one of its processes has taken."""
    for job in list(getattr(_processes_of(pool), "_cache", {}).values()):
        if getattr(job, "_write_to", None) is not None:
            job._accepted = True


def kill_after(pool: Any, patience_s: float = PATIENCE_S) -> None:
    """Kill the pool's processes that are still working after this time."""
    timer = threading.Timer(patience_s, kill, (pool,))
    timer.daemon = True
    timer.start()


def kill(pool: Any) -> None:
    """Kill the pool's processes."""
    for process in list(getattr(_processes_of(pool), "_pool", [])):
        try:
            os.kill(process.pid, signal.SIGKILL)
        except OSError:  # it has just ended
            continue
        logger.warning("Process %d did not end in time and was killed; its messages go back to the broker", process.pid)


def _processes_of(pool: Any) -> Any:
    """Billiard's pool; None for a pool of threads, and after it has ended."""
    return getattr(pool, "_pool", None)
