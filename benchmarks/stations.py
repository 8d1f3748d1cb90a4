"""Workers that stand ready, and the clock of a drain.

What is fair to measure? A worker takes seconds to start, and more to get warm (processes, imports, connections); these
do not belong to a drain. The clock cannot start with the first commit either: by then a worker has fetched and unpacked
much of the queue, and a worker with larger batches has fetched more. Therefore a worker is started, writes some
messages, and is then paused (`cancel_consumer`). The messages are put into the queue. The clock runs from the command
to consume (`add_consumer`) to the commit of the last message. Our workers and the peers' are all Celery workers with
two processes, so all are treated alike. Workers live as long as the benchmark, and consume only when it is their turn.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from benchmarks import processes
from benchmarks.contender import Timing
from benchmarks.database import Database
from benchmarks.processes import Process
from benchmarks.workloads import Workload
from market_data_store.errors import MarketDataStoreError

#: A fetch that kombu sent before the pause can still take a message, because BRPOP waits for a second.
_PAUSE_S = 1.5
#: What a worker writes to get warm: symbols that no run uses.
_WARM_UP = Workload("fresh", 8_000, 200, first=900_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A Celery application: how its worker is started, and which program makes its messages."""

    name: str
    python: str
    #: Arguments of `python -m` for the worker, and for the program that sends a workload's messages.
    worker: tuple[str, ...]
    produce: tuple[str, ...]
    queue: str
    #: Its own environment variables, as pairs of name and value.
    environment: tuple[tuple[str, str], ...] = ()
    #: Other programs than `produce` whose messages the worker writes to get warm.
    warm_up: tuple[tuple[str, ...], ...] = ()


class Station:
    """The worker of one application on one broker and one database."""

    def __init__(self, application: Application, broker_url: str, database: Database, directory: Path) -> None:
        self.application = application
        self.database = database
        self._env = processes.environment(
            BROKER_URL=broker_url,
            DATABASE_URL=database.url,
            MDS_REMOTE_CONTROL="true",
            **dict(application.environment),
        )
        self._broker = Celery(broker=broker_url, set_as_current=False)
        self._host = f"{uuid4().hex[:8]}@benchmark"
        command = [application.python, "-m", *application.worker, "--hostname", self._host]
        self._process = Process(command, self._env, directory / f"{self._host}.log")
        self._paused_at = 0.0

    @property
    def pid(self) -> int:
        """Process id of the worker's parent process."""
        return self._process.pid

    def warm_up(self) -> None:
        """Wait until the worker is ready, let it write something, and pause it."""
        self._process.until_logged("ready.")
        for program in (self.application.produce, *self.application.warm_up):
            self.database.clear()
            self._produce(program, _WARM_UP)
            self.database.until_committed(_WARM_UP.markers())
        self.pause()

    def pause(self) -> None:
        """Make the worker stop consuming."""
        self._tell("cancel_consumer", wait=True)
        self._paused_at = time.monotonic()

    def resume(self) -> None:
        """Make the worker consume."""
        self._tell("add_consumer", wait=False)

    def enqueue(self, workload: Workload) -> float:
        """Put the workload's messages into the queue; return the seconds that the sender took."""
        self.until_paused()
        return self._produce(self.application.produce, workload)

    def until_paused(self) -> None:
        """Wait until a paused worker takes no message that is put into the queue now."""
        time.sleep(max(0.0, self._paused_at + _PAUSE_S - time.monotonic()))

    def drain(self, workload: Workload, pids: Mapping[str, int]) -> Timing:
        """Time the drain of the queue into the table; the facts have each process's CPU microseconds per row."""
        # Make the markers before the clock starts: it would take a core from the contender.
        markers = workload.markers()
        before = self._cpu_s(pids)
        started = time.perf_counter()
        self.resume()
        self.database.until_committed(markers)
        seconds = time.perf_counter() - started
        after = self._cpu_s(pids)
        self.pause()
        self.database.check(workload)
        used = {f"cpu_us_{name}": 1e6 * (after[name] - before[name]) / workload.rows for name in after}
        return Timing(workload.rows, seconds, used)

    def close(self) -> None:
        """End the worker."""
        self._process.kill()
        self._broker.close()

    def _produce(self, program: tuple[str, ...], workload: Workload) -> float:
        arguments = [workload.kind, *map(str, (workload.rows, workload.per_message, workload.first))]
        command = [self.application.python, "-m", *program, *arguments, str(workload.live_symbols)]
        return float(processes.answer(command, self._env)["seconds"])

    def _tell(self, command: str, *, wait: bool) -> None:
        try:
            replies = self._broker.control.broadcast(
                command,
                arguments={"queue": self.application.queue},
                destination=[self._host],
                reply=wait,
                timeout=10.0 if wait else None,
                limit=1 if wait else None,
            )
        except OperationalError as error:
            raise MarketDataStoreError(f"{self.application.name}: the broker does not answer: {error}") from error
        if wait and not replies:
            raise MarketDataStoreError(f"{self.application.name}: the worker does not answer; see {self._process.log}")

    def _cpu_s(self, pids: Mapping[str, int]) -> dict[str, float]:
        used = {name: processes.cpu_s(pid, with_children=True) for name, pid in pids.items()}
        used["parent"] = processes.cpu_s(self.pid, with_children=False)
        used["children"] = processes.cpu_s(self.pid, with_children=True) - used["parent"]
        return used


class Stations:
    """The workers of a benchmark, each started when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stations: dict[tuple[Application, str, str], Station] = {}

    def get(self, application: Application, broker_url: str, database: Database) -> Station:
        """Return a worker that is warm and paused."""
        key = (application, broker_url, database.url)
        if key not in self._stations:
            self._stations[key] = Station(application, broker_url, database, self._directory)
            self._stations[key].warm_up()
        return self._stations[key]

    def give_up(self, application: Application, broker_url: str, database: Database) -> None:
        """End a failing worker, and purge its queue; the next `get` starts another worker."""
        station = self._stations.pop((application, broker_url, database.url), None)
        if station is not None:
            station.close()
        with Connection(broker_url) as connection:
            connection.default_channel.queue_purge(application.queue)

    def close(self) -> None:
        """End all workers."""
        for station in self._stations.values():
            station.close()
