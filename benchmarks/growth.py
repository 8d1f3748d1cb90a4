"""Does a large table make writes slower? The same runs with 0, 1, 10 and 50 million rows in the table already.

Each size has its own database, so that sizes take turns as well. The rows are like a live feed's: 500 symbols, one
minute after the other. The new rows continue where the table ends, so they go to 500 places in the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.contender import Contender
from benchmarks.contenders.bare_copy import BareCopy
from benchmarks.contenders.drain import OURS, Drain
from benchmarks.contenders.writer import OurWriter
from benchmarks.database import Database, created
from benchmarks.servers import DATABASE, REDIS, Servers
from benchmarks.stations import Stations
from benchmarks.workloads import Workload, symbol_name

SYMBOLS = 500
_ROWS_AT_ONCE = 500_000

_GROW = """
    INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, volume, enqueued_at)
    SELECT 'CME', symbol, '1m', timestamptz '2000-01-01' + minute * interval '1 minute',
           1.1 + minute %% 97 * 1e-5, 1.2, 1.0, 1.1, minute %% 1009, timestamptz '2020-01-01'
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS minute, unnest(%(symbols)s::text[]) AS symbol
"""


class GrownDatabase(Database):
    """A database whose table stays large: each run adds its rows."""

    def clear(self) -> None:
        """Keep the rows."""

    def check(self, workload: Workload, table: str = "bars_ohlcv") -> None:
        """Skip the check, because counting takes long; the last row of each message was seen."""


@contextmanager
def grown(servers: Servers, rows: int, show: Callable[[int], None]) -> Iterator[Database]:
    """Create a database with this many rows; call `show` with the number of rows inserted so far."""
    with created(servers.server_url, f"{DATABASE}_{rows}") as database:
        symbols = [symbol_name(number) for number in range(SYMBOLS)]
        minutes_at_once = _ROWS_AT_ONCE // SYMBOLS
        with database.connect() as connection:
            for first in range(0, rows // SYMBOLS, minutes_at_once):
                last = min(first + minutes_at_once, rows // SYMBOLS) - 1
                connection.execute(_GROW, {"first": first, "last": last, "symbols": symbols})
                show((last + 1) * SYMBOLS)
            connection.execute("VACUUM (ANALYZE) bars_ohlcv")
        yield GrownDatabase(database.url)


@contextmanager
def databases(servers: Servers, sizes: Sequence[int], show: Callable[[int], None]) -> Iterator[dict[int, Database]]:
    """Yield a database for each size, and the empty one for 0."""
    with ExitStack() as stack:
        large = {rows: stack.enter_context(grown(servers, rows, show)) for rows in sizes}
        yield {0: servers.database, **large}


def contenders(servers: Servers, stations: Stations, database: Database, rows: int, turn: int) -> list[Contender]:
    """Return the yardstick, our writer and our worker, each with keys that no earlier run had."""
    workloads = [Workload("fresh", rows, 500, first=3 * turn + n, live_symbols=SYMBOLS) for n in range(3)]
    redis = (REDIS, servers.brokers[REDIS])
    return [
        BareCopy(database, workloads[0]),
        OurWriter(database, workloads[1]),
        Drain(stations, OURS, redis, database, workloads[2], servers.pids),
    ]
