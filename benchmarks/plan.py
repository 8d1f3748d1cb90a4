"""Plans which contenders take turns, and with how many rows each, so that a turn takes a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from benchmarks.contender import Contender
from benchmarks.contenders import celery_peers
from benchmarks.contenders.drain import OURS, OURS_OF_TABLES, Drain
from benchmarks.contenders.handing_over import HandingOver
from benchmarks.contenders.limit import Limit
from benchmarks.contenders.predecessor import WAYS, Predecessor
from benchmarks.contenders.writer import OurWriter
from benchmarks.servers import REDIS, Servers
from benchmarks.stations import Application, Stations
from benchmarks.workloads import KINDS, Workload
from market_data_store.errors import MarketDataStoreError

#: Groups whose contenders take turns; `latency`, `memory` and `growth` are measured separately.
GROUPS = ("writer", "drain", "kinds", "peers", "client")

PER_MESSAGE = (1, 10, 100, 500, 2_000)
#: Rows per message of `write_table`.
TABLE_ROWS = 5_000
#: Share of --rows, by rows per message: slow contenders get fewer rows.
SHARES = {1: 1 / 20, 10: 1 / 4}
TABLE_SHARE = 3
_EXECUTEMANY = {500: 1 / 4, 1: 1 / 200}
_BATCHES = {500: 1 / 4, 1: 1 / 20}
_SQLALCHEMY, _PREDECESSOR = 1 / 10, 1 / 4


def sized(rows: int, kind: str, per_message: int, share: float = 1.0) -> Workload:
    """Return a workload with a share of the rows, and at least ten messages."""
    return Workload(kind, max(round(rows * share), 10 * per_message), per_message)


class Plan:
    """Makes the selected contenders; `skipped` has those that cannot be made, with the reasons."""

    def __init__(self, servers: Servers, stations: Stations, rows: int, per_message: Sequence[int]) -> None:
        self._servers, self._stations, self._rows = servers, stations, rows
        self._per_message = per_message
        self.skipped: dict[str, str] = {}

    def contenders(self, only: frozenset[str]) -> list[Contender]:
        """Return the contenders of these groups in the order of their turns."""
        groups: dict[str, Callable[[], Iterator[Contender]]] = {
            "writer": self._writer,
            "drain": self._drain,
            "kinds": self._kinds,
            "peers": self._peers,
            "client": self._client,
        }
        return [contender for name in GROUPS if name in only for contender in groups[name]()]

    def workload(self, kind: str = "fresh", per_message: int = 500, share: float = 1.0) -> Workload:
        """Return a workload with a share of --rows."""
        return sized(self._rows, kind, per_message, share)

    def _writer(self) -> Iterator[Contender]:
        database = self._servers.database
        yield OurWriter(database, self.workload())
        yield OurWriter(database, self.workload(), merges=False)
        yield OurWriter(database, self.workload(), decodes=True)

    def _drain(self) -> Iterator[Contender]:
        yield Limit(self._servers.database, self.workload())
        for per_message in self._per_message:
            for broker in self._servers.brokers.items():
                yield self._drained(OURS, broker, self.workload("fresh", per_message, SHARES.get(per_message, 1.0)))
        for broker in self._servers.brokers.items():
            yield self._drained(OURS_OF_TABLES, broker, self.workload("fresh", TABLE_ROWS, TABLE_SHARE))

    def _kinds(self) -> Iterator[Contender]:
        for kind in KINDS[1:]:
            yield OurWriter(self._servers.database, self.workload(kind))
            for broker in self._servers.brokers.items():
                yield self._drained(OURS, broker, self.workload(kind))
            workload = self.workload(kind, 500, _EXECUTEMANY[500])
            yield from self._peer(celery_peers.executemany, [self._redis], workload)

    def _peers(self) -> Iterator[Contender]:
        brokers = list(self._servers.brokers.items())
        for per_message, share in _EXECUTEMANY.items():
            yield from self._peer(celery_peers.executemany, brokers, self.workload("fresh", per_message, share))
        workload = self.workload("fresh", 500, _SQLALCHEMY)
        yield from self._peer(celery_peers.sqlalchemy_upsert, [self._redis], workload)
        for per_message, share in _BATCHES.items():
            make = partial(celery_peers.batches, per_message)
            yield from self._peer(make, brokers, self.workload("fresh", per_message, share))
        for way in WAYS:
            # Messages have 500 rows, except for StoreClient, which uses COPY only from 1,000 rows on.
            workload = self.workload("fresh", 1_000 if way == "store_client" else 500, _PREDECESSOR)
            try:
                yield Predecessor(way, self._servers.database, workload)
            except MarketDataStoreError as error:
                self.skipped["predecessor"] = str(error)

    def _client(self) -> Iterator[Contender]:
        for broker in self._servers.brokers.items():
            yield HandingOver(OURS, broker, self.workload())
            yield HandingOver(OURS_OF_TABLES, broker, self.workload("fresh", TABLE_ROWS))

    def _peer(
        self, make: Callable[[], Application], brokers: Sequence[tuple[str, str]], workload: Workload
    ) -> Iterator[Contender]:
        """Yield the peer on each broker, unless its environment cannot be made."""
        try:
            application = make()
        except MarketDataStoreError as error:
            self.skipped[f"a peer, {workload.per_message} rows a message"] = str(error)
            return
        for broker in brokers:
            yield self._drained(application, broker, workload)

    def _drained(self, application: Application, broker: tuple[str, str], workload: Workload) -> Contender:
        return Drain(self._stations, application, broker, self._servers.database, workload, self._servers.pids)

    @property
    def _redis(self) -> tuple[str, str]:
        return REDIS, self._servers.brokers[REDIS]
