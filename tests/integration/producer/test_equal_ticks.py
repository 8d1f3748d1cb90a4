"""Equal ticks of one call are kept apart by a worker, also if the call becomes several messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from celery import Celery
from support.brokers import on_redis
from support.databases import Connection
from support.processes import mds
from support.workers import Worker
from support.writing import select

from market_data_store import StoreClient
from market_data_store.protocol import Counts

COUNT = "SELECT count(*) FROM tick_data"


def ticks() -> list[dict[str, Any]]:
    """1,000 ticks without ids, of which 100 are there twice, far apart."""
    moment = "2024-01-02T14:30:00.{:06}Z"
    different = [{"provider": "p", "symbol": "S", "ts": moment.format(n), "price": n / 4} for n in range(900)]
    return [*different, *different[::9]]


def write(producer: Celery, *calls: list[dict[str, Any]], as_table: bool = False, **options: Any) -> Counts:
    with StoreClient(app=producer, confirm=True, **options) as client:
        for rows in calls:
            if as_table:
                client.write_table("ticks", pa.Table.from_pylist(rows))
            else:
                client.write("ticks", rows)
        client.flush()
        assert client.confirm(timeout_s=30)
        return client.confirmed


@on_redis
@pytest.mark.parametrize("options", [{}, {"max_rows": 7}, {"check": False}, {"as_table": True}, {"max_bytes": 2_000}])
def test_1_000_ticks_are_1_000_rows_and_again_unchanged(
    options: dict[str, Any], producer: Celery, worker: Worker, database: Connection
) -> None:
    assert write(producer, ticks(), **options) == Counts(written=1_000)
    assert select(database, COUNT) == [(1_000,)]
    assert write(producer, ticks(), **options) == Counts(unchanged=1_000)
    assert write(producer, ticks()) == Counts(unchanged=1_000)


@on_redis
def test_equal_ticks_of_different_calls_are_one(producer: Celery, worker: Worker, database: Connection) -> None:
    one, *_ = ticks()
    write(producer, [one], [one], [one, one], linger_s=5)
    assert select(database, COUNT) == [(2,)]


@on_redis
def test_equal_ticks_of_a_file_are_kept_apart(
    producer: Celery, worker: Worker, database: Connection, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    lines = ["provider,symbol,ts,price", *(",".join(map(str, row.values())) for row in ticks())]
    (tmp_path / "ticks.csv").write_text("\n".join(lines))
    for expected in ("1,000 written, 0 unchanged", "0 written, 1,000 unchanged"):
        loaded = mds(
            tmp_path, "load", "ticks.csv", "--dataset", "ticks", DATABASE_URL=database_url, BROKER_URL=broker_url
        )
        assert expected in loaded.stdout, loaded
    assert select(database, COUNT) == [(1_000,)]
