"""The command `python -m benchmarks.partitions`: what partitions cost and save in a table of ticks of three years.

Postgres makes the rows itself, in partitions by month. Then our writer writes new rows of the newest month, in turns
with the same into a plain table that is empty; a message with a row of ten years ago goes through a worker while
`mds monitor` runs; and retention drops months, while another connection writes row by row and notes how long it waits.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import psutil
import psycopg
from celery import Celery

from benchmarks import processes
from benchmarks.database import Database, created
from benchmarks.servers import REDIS, Servers, servers
from market_data_store.config import settings
from market_data_store.datasets import DATASETS
from market_data_store.datasets.spans import Span
from market_data_store.errors import MarketDataStoreError
from market_data_store.local.processes import worker_command
from market_data_store.postgres import retention, schema
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.partitioning import make
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import QUEUE, TASK
from market_data_store.wire.columns import DecodedRows
from market_data_store.wire.rows import read_rows

#: What is wanted.
_RATIO, _STORED_S, _DROPPED_S, _WAIT_S = 0.9, 10.0, 2.0, 0.1
_SYMBOLS, _BATCH_ROWS = 200, 5_000
_DROPPED_MONTHS = 3
_PARTITIONS = {"MDS_PARTITIONS": "ticks=month"}
_GROW = """
    INSERT INTO tick_data (provider, symbol, ts, seq, price, size, enqueued_at)
    SELECT 'CME', 'S' || symbol, %(start)s::timestamptz + (i * %(step)s::bigint) * interval '1 microsecond', i,
           100 + i %% 997 * 0.01, i %% 1009, timestamptz '2020-01-01'
    FROM generate_series(1, %(symbols)s) AS symbol, generate_series(1, %(each)s) AS i
"""
_TICK = """
    INSERT INTO tick_data (provider, symbol, ts, seq, price, enqueued_at) VALUES ('CME', 'LIVE', now(), %s, 1, now())
"""


_WRITERS = """
    SELECT pid FROM pg_stat_activity WHERE application_name = 'mds-worker' AND datname = current_database()
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rows", type=click.IntRange(100_000), default=100_000_000, show_default=True, help="In all months.")
@click.option("--months", type=click.IntRange(6, 120), default=36, show_default=True)
@click.option(
    "--fresh", type=click.IntRange(2 * _BATCH_ROWS), default=200_000, show_default=True, help="Rows of a turn."
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("benchmarks/out"), show_default=True
)
def command(rows: int, months: int, fresh: int, rounds: int, out: Path) -> None:
    """Measure writes, a late row and retention with ticks of many months in partitions.

    Exits with 1 if a figure is not what is wanted.

    100 million rows take some 20 GB next to the results, and about 20 minutes to make.

    \b
    python -m benchmarks.partitions --rows 2000000
    python -m benchmarks.partitions
    """
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=out.resolve(), prefix="servers-")))
        found = stack.enter_context(servers(scratch, database_url="", redis_url="", rabbitmq_url=""))
        plain = found.database
        _set_partitions()
        partitioned = stack.enter_context(created(found.server_url, "market_data_partitions", schema.upgrade))
        starts = _months(months)
        _fill(partitioned, starts, rows)
        results = {
            **_write(plain, partitioned, fresh, rounds),
            "late_row_s": _late(found, partitioned, scratch),
            **_drop(partitioned, starts),
        }
    click.echo(json.dumps({"rows": rows, "months": months, **results}, indent=2))
    wanted = {
        "ratio_to_plain": results["ratio_to_plain"] >= _RATIO,
        "late_row_s": results["late_row_s"] <= _STORED_S,
        "retention_s": results["retention_s"] <= _DROPPED_S,
        "longest_wait_s": results["longest_wait_s"] <= _WAIT_S,
    }
    missed = [name for name, is_met in wanted.items() if not is_met]
    click.echo(f"missed: {', '.join(missed)}" if missed else "all that is wanted is met")
    sys.exit(1 if missed else 0)


def _set_partitions() -> None:
    """From here on, this process knows that ticks have partitions; the plain table was made before."""
    os.environ.update(_PARTITIONS)
    settings.cache_clear()
    DATASETS.forget()


def _months(count: int) -> list[datetime]:
    """Return the starts of the last months, the present one last."""
    starts = [Span.MONTH.start_of(datetime.now(UTC))]
    while len(starts) < count:
        starts.append(Span.MONTH.start_of(starts[-1] - timedelta(days=1)))
    return starts[::-1]


def _fill(database: Database, starts: Sequence[datetime], rows: int) -> None:
    each = rows // len(starts) // _SYMBOLS
    with database.connect() as connection:
        connection.execute("SET synchronous_commit = off")
        for number, start in enumerate(starts, 1):
            make(connection, DATASETS["ticks"], Span.MONTH, start)
            # The present month ends with what the writer adds.
            seconds = 86_400 * (27 if number < len(starts) else 0.5)
            given = {"start": start, "step": int(seconds * 1e6 / each), "symbols": _SYMBOLS, "each": each}
            connection.execute(_GROW, given)
            click.echo(f"{number * each * _SYMBOLS:,} rows in {number} months", err=True)
        connection.execute("ANALYZE tick_data")
        connection.execute("CHECKPOINT")


def _write(plain: Database, partitioned: Database, rows: int, rounds: int) -> dict[str, float]:
    """Return the medians of the ratios of two turns next to each other: of the rates, and of the CPU time for a row.

    The latter is of Postgres's session and of the writer, and changes less while others use the machine.
    """
    ratios, cpu_ratios = [], []
    writers = {database.url: Writer(database.url) for database in (plain, partitioned)}
    for turn in range(-1, rounds):  # the first is to warm up
        seconds, cpu = {}, {}
        for database in (plain, partitioned) if turn % 2 else (partitioned, plain):
            if database is plain:
                with plain.connect() as connection:
                    connection.execute("TRUNCATE tick_data")
            database.settle()
            batches = list(_batches(turn + 1, rows))
            writer = writers[database.url]
            writer.write(*batches.pop(0))  # the connection is open then
            used, began = _cpu_s(database.url), time.perf_counter()
            for batch, messages in batches:
                writer.write(batch, messages)
            seconds[database.url] = time.perf_counter() - began
            cpu[database.url] = _cpu_s(database.url) - used
        ratio = seconds[plain.url] / seconds[partitioned.url]
        rates = (f"{(rows - _BATCH_ROWS) / seconds[database.url]:,.0f} rows/s" for database in (plain, partitioned))
        note = "" if turn >= 0 else " (not counted)"
        click.echo(f"plain {next(rates)}, partitioned {next(rates)}, ratio {ratio:.2f}{note}", err=True)
        ratios += [ratio] if turn >= 0 else []
        cpu_ratios += [cpu[plain.url] / cpu[partitioned.url]] if turn >= 0 else []
    for writer in writers.values():
        writer.close()
    found = {"ratio_to_plain": ratios, "cpu_ratio_to_plain": cpu_ratios}
    return {name: round(statistics.median(each), 3) for name, each in found.items()}


def _cpu_s(url: str) -> float:
    """Return the CPU seconds that this process and the writers' sessions with this database have used."""
    with psycopg.connect(url) as connection:
        pids = [pid for (pid,) in connection.execute(_WRITERS).fetchall()]
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(time.process_time() + sum(each.user + each.system for each in times))


def _batches(turn: int, rows: int) -> Iterator[tuple[DecodedRows, list[DecodedMessage]]]:
    """Yield ticks of now, of all symbols in turns, with times that no other turn has."""
    ticks, now = DATASETS["ticks"], time.time()
    for first in range(0, rows, _BATCH_ROWS):
        sent = [
            {"provider": "CME", "symbol": f"S{n % _SYMBOLS}", "ts": now + n * 1e-6, "seq": turn, "price": 1 + n % 7}
            for n in range(first, first + _BATCH_ROWS)
        ]
        read = read_rows(ticks, json.dumps(sent).encode(), {})
        message = DecodedMessage(task_id=f"{turn}-{first}", dataset=ticks, rows=read, enqueued_at=int(now * 1e6))
        yield decoded(ticks, [message]), [message]


def _late(found: Servers, database: Database, scratch: Path) -> float:
    """Return the seconds from sending a row of ten years ago until it is stored."""
    broker = found.brokers[REDIS]
    given = {"BROKER_URL": broker, "DATABASE_URL": database.url, **_PARTITIONS}
    env = processes.environment(**given)
    worker = [sys.executable, "-m", *worker_command(concurrency=1)]
    monitor = [sys.executable, "-m", "market_data_store", "monitor"]
    row = {"provider": "CME", "symbol": "LATE", "ts": "2016-03-04T05:06:07Z", "seq": 1, "price": 1.0}
    with (
        processes.running(worker, env, scratch / "worker.log") as celery,
        processes.running(monitor, env, scratch / "monitor.log") as upkeep,
        Celery("late", broker=broker, set_as_current=False) as app,
    ):
        celery.until_logged(" ready.")
        upkeep.until_logged("leads the upkeep")
        began = time.perf_counter()
        app.send_task(TASK, args=["ticks", [row]], queue=QUEUE, ignore_result=True)
        with database.connect() as connection:
            while not connection.execute("SELECT FROM tick_data WHERE symbol = 'LATE' AND provider = 'CME'").rowcount:
                if time.perf_counter() - began > 6 * _STORED_S:
                    raise MarketDataStoreError(f"the late row is not stored:\n{celery.log.read_text()[-2_000:]}")
                time.sleep(0.02)
        return round(time.perf_counter() - began, 2)


def _drop(database: Database, starts: Sequence[datetime]) -> dict[str, float]:
    """Drop the oldest months, one a run; returns the longest run, and the longest wait of a writer meanwhile."""
    seconds: list[float] = []
    with database.connect() as connection, _waits(database.url) as waits:
        for start in starts[1 : _DROPPED_MONTHS + 1]:
            time.sleep(0.5)
            began = time.perf_counter()
            gone = str(retention.total("ticks", start, retention.delete(connection, "ticks", start)))
            seconds.append(time.perf_counter() - began)
            click.echo(f"{gone} in {seconds[-1]:.2f} s", err=True)
        time.sleep(0.5)
    return {"retention_s": round(max(seconds), 3), "longest_wait_s": round(max(waits), 4)}


@contextmanager
def _waits(url: str) -> Iterator[list[float]]:
    """Insert one tick after the other during the block; yields a list of how many seconds each took."""
    stop, waits = threading.Event(), [0.0]

    def insert() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            number = 0
            while not stop.is_set():
                number += 1
                began = time.perf_counter()
                connection.execute(_TICK, [number])
                waits.append(time.perf_counter() - began)

    thread = threading.Thread(target=insert)
    thread.start()
    try:
        yield waits
    finally:
        stop.set()
        thread.join()


def main() -> None:
    """Run the command; print a `MarketDataStoreError` as one line, and exit with 1."""
    try:
        command()
    except MarketDataStoreError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
