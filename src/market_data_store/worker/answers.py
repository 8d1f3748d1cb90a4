"""What a worker answers to those who ask which queues it consumes: which datasets it holds and why, and how it gets on.

It is a part of the answer to Celery's `active_queues`, which monitor, web and `mds status` ask for anyway. So they need
no other question, and no place to keep the reason: the workers know it, whichever broker it is and however Postgres is.
It is with each lane's queue, so that those who watch one lane see it.
"""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from celery.worker import control
from celery.worker import state as celery_state
from kombu.utils.uuid import uuid

from market_data_store.protocol import ANSWER, LANES
from market_data_store.worker import tally

_active_queues = control.active_queues
_VERSION = version("market-data-store")
#: Tells this process from others of its name, before it and beside it.
_INSTANCE = uuid()
_BEGAN = time.monotonic()
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@control.inspect_command(name="active_queues")
def active_queues(state: Any) -> list[dict[str, Any]]:
    """List the task queues a worker is currently consuming from."""
    queues: list[dict[str, Any]] = _active_queues(state)
    consumer = state.consumer
    answer = {
        "held": consumer.held.troubles,
        "stalled_s": consumer.progress.stalled_s,
        "deaf_s": consumer.watch.deaf_s,
        "settled_s": consumer.progress.settled_s,
        "fallback": consumer.watch.fallback,
        "version": _VERSION,
        "processes": consumer.pool.num_processes,
        "up_s": round(time.monotonic() - _BEGAN, 3),
        "holds": len(celery_state.reserved_requests),
        "rss_bytes": _rss_bytes(consumer.pool),
        "clock": time.time(),
    }
    once = {"instance": _INSTANCE, "counted": tally.total()}  # what is long, with one queue only
    answered = []
    for queue in queues:
        if queue.get("name") in LANES.values():
            queue, once = {**queue, ANSWER: answer | once}, {}
        answered.append(queue)
    return answered


def _rss_bytes(pool: Any) -> int | None:
    """Return the resident memory of the worker's processes; pages that they share count for each of them."""
    try:
        pids = {os.getpid(), *pool.info.get("processes", ())}
        return sum(_PAGE_BYTES * int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    except (OSError, IndexError, ValueError):  # not Linux, or a process has just ended
        return None
