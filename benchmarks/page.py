"""The command `python -m benchmarks.page`: how long web takes to answer with a large store behind it.

5,000 series, 200 workers (one process answers for all) and 100,000 dead letters, on embedded Postgres and Valkey, and
the web process as gunicorn serves it. Each request is made by a client of its own, one after the other.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import httpx
import psycopg

from benchmarks import busy_store
from benchmarks.processes import environment, running
from market_data_store.errors import MarketDataStoreError
from market_data_store.local import free_port, start_postgres, start_valkey
from market_data_store.local.processes import web_command
from market_data_store.postgres import schema

_TOKEN = "t0ken-of-the-benchmark"  # noqa: S105  # of a server on loopback that ends with the command
_READY_S = 60.0
_FIRST_REASON = "close: … is not a number; send a JSON number"
#: Each answer's path, and what is wanted of its median, in milliseconds.
PATHS = {
    "the page": ("/", 100.0),
    "status.json": ("/status.json", 100.0),
    "letters": ("/dead-letters?limit=20", 100.0),
    "letters of a reason": (f"/dead-letters?limit=20&dataset=bars&pattern={_FIRST_REASON}", 100.0),
    "letters by reason": ("/dead-letters/groups?by=reason", 100.0),
    "letters by job": ("/dead-letters/groups?by=job", 100.0),
    "one letter": ("/dead-letters/50000", 100.0),
    "series": ("/series?dataset=bars&limit=50", 100.0),
    "series by name": ("/series?dataset=bars&limit=50&search=s49", 500.0),
    "rows of a series": (
        "/series/rows?dataset=bars&provider=polygon&symbol=S0001&interval=1m&limit=300",
        100.0,
    ),
}


@click.command()
@click.option("--times", type=click.IntRange(1), default=50, show_default=True, help="Requests of each kind.")
@click.option("--series", type=click.IntRange(1), default=busy_store.SERIES, show_default=True)
@click.option("--workers", type=click.IntRange(0), default=busy_store.WORKERS, show_default=True)
@click.option("--letters", type=click.IntRange(0), default=busy_store.LETTERS, show_default=True)
def command(times: int, series: int, workers: int, letters: int) -> None:
    """Measure how long the page, its JSON and the API of letters and series take; exit with 1 above what is wanted."""
    with tempfile.TemporaryDirectory() as directory, _web(Path(directory), series, workers, letters) as client:
        status = client.get("/status.json").json()
        seen = len(status["worker_list"] or ()), status["dead_letters"]["total"]
        print("{:,} series, {:,} workers, {:,} letters".format(series, *seen))
        print(f"{'answer':<22}{'p50 ms':>8}{'p99 ms':>8}{'wanted':>8}{'KiB':>8}")
        slow = []
        for name, (path, wanted_ms) in PATHS.items():
            p50, p99, size = _measured(client, path, times)
            print(f"{name:<22}{p50:>8.1f}{p99:>8.1f}{wanted_ms:>8.0f}{size / 1024:>8.1f}")
            slow += [name] if p50 > wanted_ms else []
    if slow:
        print(f"slower than wanted: {', '.join(slow)}")
        sys.exit(1)


def _measured(client: httpx.Client, path: str, times: int) -> tuple[float, float, int]:
    """Return p50 and p99 in milliseconds, and the bytes of an answer."""
    taken = []
    size = 0
    for _ in range(times):
        started = time.perf_counter()
        answer = client.get(path)
        taken.append((time.perf_counter() - started) * 1e3)
        size = len(answer.raise_for_status().content)
    taken.sort()
    return statistics.median(taken), taken[min(len(taken) - 1, round(0.99 * len(taken)))], size


@contextmanager
def _web(directory: Path, series: int, workers: int, letters: int) -> Iterator[httpx.Client]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with start_postgres(directory / "postgres") as postgres, start_valkey(directory / "valkey") as valkey:
        schema.upgrade(postgres.url)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            busy_store.fill(connection, series=series, letters=letters)
        servers = environment(DATABASE_URL=postgres.url, BROKER_URL=valkey.url, ADMIN_TOKEN=_TOKEN, APP_PORT=str(port))
        many = [sys.executable, "-m", "benchmarks.many_workers", str(workers)]
        web = [sys.executable, "-m", *web_command()]
        with (
            running(many, servers, directory / "workers.log") as answering,
            running(web, servers, directory / "web.log"),
            httpx.Client(base_url=url, headers={"Authorization": f"Bearer {_TOKEN}"}, timeout=30) as client,
        ):
            answering.until_logged("answering")
            _until_known(client, workers)
            yield client


def _until_known(client: httpx.Client, workers: int) -> None:
    """Wait until web has seen all parts."""
    deadline = time.monotonic() + _READY_S
    status: dict[str, object] = {}
    while time.monotonic() < deadline:
        try:
            status = client.get("/status.json").json()
        except httpx.TransportError:
            status = {}
        letters = status.get("dead_letters")
        is_counted = isinstance(letters, dict) and letters["reasons"] is not None
        found = status.get("worker_list")
        if is_counted and isinstance(found, list) and len(found) >= min(workers, busy_store.WORKERS):
            return
        time.sleep(0.5)
    raise MarketDataStoreError(f"web has not seen all within {_READY_S:.0f} s; it says {str(status)[:500]}")


if __name__ == "__main__":
    command()
