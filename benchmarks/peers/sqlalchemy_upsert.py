"""A plain Celery task with SQLAlchemy's `insert().values(rows).on_conflict_do_update()`."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from celery import Celery
from sqlalchemy import Column, DateTime, Double, Engine, MetaData, Table, Text, create_engine
from sqlalchemy.dialects.postgresql import insert

app = Celery("sqlalchemy_upsert")
app.config_from_object("benchmarks.peers.settings")

_KEY = ("provider", "symbol", "interval")
_VALUES = ("open", "high", "low", "close", "volume")
_BARS = Table(
    "bars_ohlcv",
    MetaData(),
    *(Column(name, Text, primary_key=True) for name in _KEY),
    Column("ts", DateTime(timezone=True), primary_key=True),
    *(Column(name, Double) for name in _VALUES),
)


@cache
def _engine(pid: int) -> Engine:
    return create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1))


@app.task(name="peer.write")
def write(rows: list[dict[str, Any]]) -> None:
    """Write a message in one statement and one transaction; rows are in key order, to avoid deadlocks."""
    rows = sorted(rows, key=lambda row: (row["provider"], row["symbol"], row["interval"], row["ts"]))
    statement = insert(_BARS).values(rows)
    excluded = {name: statement.excluded[name] for name in _VALUES}
    with _engine(os.getpid()).begin() as connection:
        connection.execute(statement.on_conflict_do_update(index_elements=[*_KEY, "ts"], set_=excluded))
