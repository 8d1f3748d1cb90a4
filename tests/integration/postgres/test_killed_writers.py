"""Several writers of the same keys, whose sessions are killed: each key keeps its newest row, and each row counts."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import psycopg
import pytest
from support.databases import Connection
from support.writing import Row, bar, message, select, write

from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

KEYS = 2_000
ROWS_AT_ONCE = 500
FEW_ROWS_AT_ONCE = 5
KILL_INTERVAL_S = 0.05
KILL = """
    SELECT pg_terminate_backend(pid) FROM (
        SELECT pid FROM pg_stat_activity
        WHERE application_name = 'mds-worker' AND datname = current_database() ORDER BY random() LIMIT 1
    ) AS one
"""


@dataclass(frozen=True)
class Part:
    """A message; its moment is its rows' value, too."""

    moment: int
    rows: list[Row]


def parts(rows: int, seed: int) -> list[Part]:
    """Messages in any order of their moments; some are sent twice."""
    shuffle = random.Random(seed)  # noqa: S311
    made: list[Part] = []
    sent = 0
    while sent < rows:
        size = FEW_ROWS_AT_ONCE if shuffle.random() < 0.2 else ROWS_AT_ONCE
        keys = shuffle.sample(range(KEYS), size)
        moment = len(made)
        made.append(Part(moment, [bar(symbol=f"S{key:04d}", close=float(moment)) for key in keys]))
        sent += size
    made += shuffle.sample(made, len(made) // 10)
    shuffle.shuffle(made)
    return made


def persistently(writer: Writer, part: Part) -> Counts:
    while True:
        try:
            return write(writer, message(part.rows, at=part.moment))[0]
        except DatabaseUnavailable:
            continue


@pytest.mark.parametrize("writers", [2, 8])
@pytest.mark.parametrize("rows", [10_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_of_several_writers_that_are_killed_the_newest_rows_stay_and_the_counts_add_up(
    writer_url: str, database: Connection, database_url: str, writers: int, rows: int
) -> None:
    sent = parts(rows, seed=writers)
    newest: dict[str, float] = {}
    for part in sorted(sent, key=lambda part: part.moment):
        newest |= {row["symbol"]: float(part.moment) for row in part.rows}
    waiting, done, kills = iter(sent), threading.Event(), 0

    def run(_: int) -> Counts:
        total = Counts()
        with closing(Writer(writer_url)) as writer:
            while (part := next(waiting, None)) is not None:
                total += persistently(writer, part)
        return total

    def kill() -> None:
        nonlocal kills
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not done.wait(KILL_INTERVAL_S):
                kills += connection.execute(KILL).rowcount

    with ThreadPoolExecutor(writers + 1) as pool:
        killing = pool.submit(kill)
        try:
            totals = list(pool.map(run, range(writers)))
        finally:
            done.set()
        killing.result()
    total = sum(totals, start=Counts())
    assert total.written + total.unchanged + total.stale == sum(len(part.rows) for part in sent)
    assert total.rejected == 0
    assert total.written > len(newest)
    assert total.stale > 0
    assert kills > 0
    assert dict(select(database, "SELECT symbol, close FROM bars_ohlcv")) == newest
    assert select(database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]
