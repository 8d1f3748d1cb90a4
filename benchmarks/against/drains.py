"""The queue's way into the table, of each version in turn; `stations` and `contenders.drain` have the clock.

Each version has a database of its own on the same Postgres, which it has migrated itself, and its own worker; on
Redis a numbered database as well. All drain the messages that the other version's `StoreClient` made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.against.builds import Build
from benchmarks.against.recording import QUEUE, Recording, recorded
from benchmarks.against.turns import in_turn
from benchmarks.against.verdict import Measure, Sample
from benchmarks.contender import Timing
from benchmarks.contenders.drain import Drain
from benchmarks.database import Database, created
from benchmarks.plan import SHARES, TABLE_ROWS, TABLE_SHARE, sized
from benchmarks.servers import DATABASE, REDIS, Servers
from benchmarks.stations import Application, Station, Stations
from benchmarks.workloads import Workload
from market_data_store.errors import MarketDataStoreError

_PRODUCE = ("benchmarks.produce",)
_PRODUCE_TABLES = ("benchmarks.produce", "--table")


@dataclass(frozen=True, slots=True)
class Case:
    """What is in the queue and in the table before a drain."""

    name: str
    kind: str
    per_message: int
    #: Of --rows.
    share: float = 1.0
    produce: tuple[str, ...] = _PRODUCE

    def workload(self, rows: int) -> Workload:
        """Its rows, when a drain of full share has this many."""
        return sized(rows, self.kind, self.per_message, self.share)


#: By the name of the part.
CASES = {
    "new": Case("new rows, 500 a message", "fresh", 500),
    "single": Case("new rows, 1 a message", "fresh", 1, SHARES[1]),
    "replayed": Case("replayed rows, 500 a message", "replayed", 500),
    "tables": Case("tables of 5,000 rows", "fresh", TABLE_ROWS, TABLE_SHARE, _PRODUCE_TABLES),
}


class RecordedDrain(Drain):
    """A drain of messages that are put back into the queue."""

    def __init__(
        self,
        stations: Stations,
        application: Application,
        broker: tuple[str, str],
        database: Database,
        workload: Workload,
        pids: Mapping[str, int],
        recording: Recording,
    ) -> None:
        super().__init__(stations, application, broker, database, workload, pids)
        self._recording = recording

    def run(self) -> Timing:
        """Drain, and leave an empty table: no autovacuum while it is another's turn."""
        timing = super().run()
        self._database.clear()
        return timing

    def _enqueue(self, station: Station) -> float:
        station.until_paused()
        started = time.perf_counter()
        self._recording.put(self._url)
        return time.perf_counter() - started


class Drains:
    """The drains of a comparison; `failed` says which cannot be measured, and why."""

    def __init__(
        self, servers: Servers, builds: Mapping[str, Build], recorder: str, directory: Path, show: Callable[[str], None]
    ) -> None:
        """`recorder` is the version whose producer makes the messages."""
        self._servers, self._builds, self._recorder, self._show = servers, builds, recorder, show
        self._stations = Stations(directory)
        self._recordings: dict[tuple[str, int, int], Recording] = {}
        self.failed: dict[str, str] = {}

    def run(self, parts: Sequence[str], brokers: Sequence[str], rows: int, rounds: int) -> Iterator[Sample]:
        """All rounds; in each, every case on every broker, and for each of them every version."""
        with ExitStack() as stack:
            stack.callback(self._stations.close)
            databases = {
                name: stack.enter_context(created(self._servers.server_url, f"{DATABASE}_{number}", build.migrate))
                for number, (name, build) in enumerate(self._builds.items())
            }
            turns = {
                Measure(f"{CASES[part].name}, {broker}", "rows/s"): self._contenders(
                    CASES[part], broker, databases, rows
                )
                for broker in brokers
                for part in parts
            }
            started = time.monotonic()
            for number in range(rounds):
                for measure, contenders in turns.items():
                    yield from self._turns(measure, contenders, number)
                took = time.monotonic() - started
                left = took / (number + 1) * (rounds - number - 1)
                self._show(f"round {number + 1} of {rounds} after {took:.0f} s, about {left:.0f} s to go")

    def _turns(self, measure: Measure, contenders: Mapping[str, RecordedDrain], number: int) -> Iterator[Sample]:
        if measure.name in self.failed:
            return
        try:
            for name in in_turn(list(contenders), number):
                contenders[name].prepare()
                timing = contenders[name].run()
                yield Sample(measure, name, number, timing.rows / timing.seconds, timing.facts)
        except MarketDataStoreError as error:
            self.failed[measure.name] = str(error)

    def _contenders(
        self, case: Case, broker: str, databases: Mapping[str, Database], rows: int
    ) -> dict[str, RecordedDrain]:
        workload, url = case.workload(rows), self._servers.brokers[broker]
        recording = self._recorded(case, broker, workload)
        return {
            name: RecordedDrain(
                self._stations,
                _application(name, self._builds[name]),
                (broker, _own_database(url, number) if broker == REDIS else url),
                database,
                workload,
                self._servers.pids,
                recording,
            )
            for number, (name, database) in enumerate(databases.items(), start=1)
        }

    def _recorded(self, case: Case, broker: str, workload: Workload) -> Recording:
        """The kind of the rows is a matter of the table: their messages are the same."""
        key = (broker, workload.rows, workload.per_message)
        if key not in self._recordings:
            self._show(f"recording {workload.rows:,} rows: {case.name}, {broker}")
            producer = [self._builds[self._recorder].python, "-m", *case.produce]
            self._recordings[key] = recorded(producer, (broker, self._servers.brokers[broker]), workload)
        return self._recordings[key]


def _application(name: str, build: Build) -> Application:
    return Application(
        name=name,
        python=build.python,
        worker=build.worker,
        produce=_PRODUCE,
        queue=QUEUE,
        warm_up=(_PRODUCE_TABLES,),
    )


def _own_database(redis_url: str, number: int) -> str:
    return urlsplit(redis_url)._replace(path=f"/{number}").geturl()
