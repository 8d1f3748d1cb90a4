"""What a worker answers to those who ask which queues it consumes: which datasets it holds and why, and how it gets on.

It is a part of the answer to Celery's `active_queues`, which monitor, web and `mds status` ask for anyway. So they need
no other question, and no place to keep the reason: the workers know it, whichever broker it is and however Postgres is.
It is with each lane's queue, so that those who watch one lane see it.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from celery.worker import control

from market_data_store.protocol import ANSWER, LANES

_active_queues = control.active_queues
_VERSION = version("market-data-store")


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
    }
    return [{**queue, ANSWER: answer} if queue.get("name") in LANES.values() else queue for queue in queues]
