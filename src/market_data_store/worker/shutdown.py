"""A worker's way out: what its processes have begun is waited for and acknowledged, but not for longer than is allowed.

Celery's warm shutdown leaves two things open.

A process that was given a job says so by a message. Celery forgets, when the consumer stops, each job of which it has
not read that message yet, so that nobody reads the result either: the rows are committed, but their messages go back
to the broker, and the process waits 30 s for its result to be read (billiard's `_ensure_messages_consumed`). Under load
this happened in 8 of 19 shutdowns, each of which then took 32 s. `expect_results` has such jobs waited for.

And it waits for a job for as long as that takes, up to its time limit. `kill_after` ends that: Postgres rolls back what
a killed process had open, and the messages go back to the broker.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

logger = logging.getLogger(__name__)

#: Seconds that jobs get. A PaaS kills 30 s after SIGTERM, `mds up` after 25; giving back takes about two.
PATIENCE_S = 18.0


def expect_results(pool: Any) -> None:
    """Keep the pool from forgetting jobs that one of its processes already has."""
    for job in list(getattr(_processes_of(pool), "_cache", {}).values()):
        if getattr(job, "_write_to", None) is not None:
            job._accepted = True


def kill_after(pool: Any, patience_s: float = PATIENCE_S) -> None:
    """Kill those of the pool's processes that are still at work then."""
    timer = threading.Timer(patience_s, _kill, (pool,))
    timer.daemon = True
    timer.start()


def _kill(pool: Any) -> None:
    for process in list(getattr(_processes_of(pool), "_pool", [])):
        try:
            os.kill(process.pid, signal.SIGKILL)
        except OSError:  # it has just ended
            continue
        logger.warning("Process %d did not end in time; what it was writing goes back to the broker", process.pid)


def _processes_of(pool: Any) -> Any:
    """Billiard's pool, where there is one: not of threads, and not once it has ended."""
    return getattr(pool, "_pool", None)
