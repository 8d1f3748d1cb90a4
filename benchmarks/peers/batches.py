"""celery-batches: as many messages per transaction as ours (about 5,000 rows, at most 128 messages, or 50 ms)."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery_batches import Batches, SimpleRequest

from benchmarks.peers.statements import upsert

_MESSAGES = max(1, min(128, 5_000 // int(os.environ["ROWS_A_MESSAGE"])))

app = Celery("batches")
app.config_from_object("benchmarks.peers.settings")
# Its manual requires at least a batch's messages for each process.
app.conf.worker_prefetch_multiplier = _MESSAGES


@app.task(name="peer.write", base=Batches, flush_every=_MESSAGES, flush_interval=0.05)
def write(requests: list[SimpleRequest]) -> None:
    """Write a batch in one transaction."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for request in requests:
        for row in request.args[0]:
            rows[row["provider"], row["symbol"], row["interval"], row["ts"]] = row
    upsert(list(rows.values()))
