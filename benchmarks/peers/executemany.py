"""A plain Celery task that passes its rows to psycopg's executemany."""

from __future__ import annotations

from typing import Any

from celery import Celery

from benchmarks.peers.statements import upsert

app = Celery("executemany")
app.config_from_object("benchmarks.peers.settings")


@app.task(name="peer.write")
def write(rows: list[dict[str, Any]]) -> None:
    """Write a message in one transaction."""
    upsert(rows)
