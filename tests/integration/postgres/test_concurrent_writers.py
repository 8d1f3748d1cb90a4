"""Writers on one Postgres at once: no deadlock, and the newest row."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from support.databases import Connection
from support.writing import TIMEOUT_S, bar, bars, closes, message, select, write

from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres.writer import Writer


def test_rows_are_written_in_the_bytewise_order_of_their_keys(writer: Writer, database: Connection) -> None:
    providers = ["a", "B", "b", "A", "é", "Z", "ｱ", "😀", "_", "a b", "a-b", "ß", "ab"]
    write(writer, message([bar(provider=provider) for provider in providers]))
    by_place = [provider for (provider,) in select(database, "SELECT provider FROM bars_ohlcv ORDER BY ctid")]
    by_key = [provider for (provider,) in select(database, "SELECT provider FROM bars_ohlcv ORDER BY provider")]
    assert by_place == by_key == sorted(providers, key=str.encode)


def test_concurrent_overlapping_batches_never_deadlock(writer_url: str, database: Connection) -> None:
    rounds, symbols = 60, [f"{letter}{i}" for letter in "ABÉß😀" for i in range(16)]
    ready = threading.Barrier(2, timeout=TIMEOUT_S)

    def run(number: int) -> Counter[str]:
        shuffle = random.Random(number)  # noqa: S311
        writer, total = Writer(writer_url), Counter[str]()
        for moment in range(rounds):
            messages = [
                message([bar(symbol=s, close=shuffle.random()) for s in shuffle.sample(symbols, 40)], at=moment)
                for _ in range(2)
            ]
            ready.wait()
            for counts in write(writer, *messages):
                total.update(written=counts.written, unchanged=counts.unchanged, stale=counts.stale)
        writer.close()
        return total

    with ThreadPoolExecutor(2) as pool:
        totals = list(pool.map(run, range(2)))
    assert sum(sum(total.values()) for total in totals) == 2 * rounds * 2 * 40
    assert select(database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]
    assert select(database, "SELECT count(*), count(DISTINCT symbol) FROM bars_ohlcv") == [(len(symbols),) * 2]


def test_concurrent_writers_leave_the_newest_row(writer_url: str, database: Connection) -> None:
    moments = list(range(60))
    random.Random(1).shuffle(moments)  # noqa: S311

    def run(number: int) -> None:
        writer = Writer(writer_url)
        for moment in moments[number::3]:
            write(writer, message(bars(5, close=float(moment)), at=moment))
        writer.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert closes(database) == [59.0] * 5


def test_concurrent_redeliveries_of_rejects_never_deadlock(
    writer_url: str, database_url: str, database: Connection
) -> None:
    name = urlsplit(database_url).path[1:]
    database.execute(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '20ms'")
    ready = threading.Barrier(2, timeout=TIMEOUT_S)

    def run(step: int) -> None:
        writer = Writer(writer_url)
        try:
            for number in range(10):
                messages = [message([7] * 5, task_id=f"{number}-{i}") for i in range(60)]
                ready.wait()
                write(writer, *messages[::step])
        except BaseException:
            ready.abort()
            raise
        finally:
            writer.close()

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(run, step) for step in (1, -1)]:
            assert not isinstance(future.exception(), DatabaseUnavailable)
    assert select(database, "SELECT count(*) FROM dead_letters") == [(3_000,)]
