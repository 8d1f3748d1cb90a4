"""Every process of the store on one broker and one Postgres, under load, with what each of them has logged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from market_data_store.datasets import DATASETS
from market_data_store.local import free_port
from support.ledger_producer import VALUES, accepted, expected
from support.processes import MDS, PYTHON, Process
from support.waiting import wait_until
from support.web import FLOWER, OPERATOR, Web, is_served, monitor, serving
from support.workers import Worker

#: What a process may log when its broker fails over, or takes no writes for some seconds: fewer lines than this.
MOST_LINES = 20
#: Within these seconds each process goes on by itself.
WITHIN_S = 30.0
_PRODUCER = "confirming"


class Hosted:
    """A worker, web, monitor, Flower and a producer with a spool that awaits results. Made running."""

    def __init__(self, stack: ExitStack, directory: Path, servers: Mapping[str, str]) -> None:
        self._directory = directory
        self._database_url = servers["DATABASE_URL"]
        # Else what a worker had in hand while its broker was away would come back after ten minutes.
        servers = {"MDS_VISIBILITY_TIMEOUT_S": "10", "MDS_FEEDBACK_HEARTBEAT_S": "2", **servers}
        self.worker = Worker({**servers, "MDS_LOG_LEVEL": "info"}, directory)
        stack.callback(self.worker.container.kill)
        self.web: Web = stack.enter_context(serving(directory, **servers))
        self.monitor = stack.enter_context(monitor(directory, **servers))
        port = free_port()
        self.flower_url = f"http://127.0.0.1:{port}"
        self.flower = Process(
            *MDS,
            *("flower", "--port", str(port)),
            directory=directory,
            environment={**servers, **FLOWER},
            name="flower",
        )
        stack.callback(self.flower.kill)
        self.producer = Process(
            *(PYTHON, "-m", "support.ledger_producer", _PRODUCER, directory, "confirm"),
            directory=directory,
            environment=servers,
            name=_PRODUCER,
        )
        stack.callback(self.producer.kill)
        self.worker.ready()
        wait_until(lambda: is_served(f"{self.flower_url}/healthcheck"), self.flower.said, timeout_s=60)
        self.goes_on(timeout_s=60)

    @property
    def processes(self) -> dict[str, Process]:
        """By name."""
        return {
            "worker": self.worker.process,
            "web": self.web.process,
            "monitor": self.monitor,
            "flower": self.flower,
            "producer": self.producer,
        }

    def stored(self) -> dict[str, dict[int, int]]:
        """By dataset, each value by its key."""
        found = {}
        with psycopg.connect(self._database_url) as connection:
            for dataset, column in VALUES.items():
                query = sql.SQL(
                    "SELECT extract(epoch FROM ts)::int, {0}::int FROM {1} WHERE provider = %s AND {0} >= 0"
                )
                table = sql.Identifier(DATASETS[dataset].table.name)
                rows = connection.execute(query.format(sql.Identifier(column), table), (_PRODUCER,)).fetchall()
                found[dataset] = {int(key): int(value) for key, value in rows}
        return found

    def accepted(self) -> dict[str, int]:
        """By dataset, how many rows the producer's `write` took."""
        return accepted(self._directory / f"{_PRODUCER}.ledger")

    def goes_on(self, timeout_s: float = WITHIN_S) -> float:
        """Wait until rows are written, the store is ready, and each watcher sees it; returns how long that took."""
        started = time.monotonic()
        newest = {name: max(values.values(), default=-1) for name, values in self.stored().items()}
        checks: dict[str, Callable[[], bool]] = {
            "rows": lambda: all(max(self.stored()[name].values(), default=-1) > newest[name] for name in VALUES),
            "web": lambda: self.web.client.get("/readyz").status_code == 200,
            "monitor": lambda: self._sees_events(started),
            "flower": lambda: self._shows_tasks(started),
        }
        for name, holds in checks.items():
            left_s = timeout_s - (time.monotonic() - started)
            wait_until(holds, lambda name=name: f"{name}: {self.logs()}", timeout_s=left_s)  # type: ignore[misc]
        return time.monotonic() - started

    def settle(self) -> None:
        """Make the producer hand over what its spool holds, and wait until what it accepted is stored."""
        self.producer.end(timeout_s=120)
        wanted = {dataset: expected(count) for dataset, count in self.accepted().items()}
        wait_until(lambda: self.stored() == wanted, self.logs, timeout_s=60)

    def logs(self) -> str:
        """The ends of the logs."""
        return "\n---\n".join(f"{name}: {process.said()[-6_000:]}" for name, process in self.processes.items())

    @contextmanager
    def counted_lines(self, counts: list[dict[str, int]]) -> Iterator[None]:
        """Add to `counts` how many lines each process logs in this block, without the worker's line for each batch."""
        for process in self.processes.values():
            process.forget_log()
        yield
        lines = {name: process.whole_text().splitlines() for name, process in self.processes.items()}
        counts.append({name: sum(" rejected, " not in line for line in found) for name, found in lines.items()})

    def _sees_events(self, started: float) -> bool:
        events = self.web.client.get("/status.json").json()["events"]
        return bool(events) and time.time() - events[0]["ts"] < time.monotonic() - started

    def _shows_tasks(self, started: float) -> bool:
        """Whether Flower has a task that came since."""
        found = (
            self.web.client.get(f"{self.flower_url}/api/tasks?limit=1&sort_by=-received", auth=OPERATOR).json().values()
        )
        return any(time.time() - task["received"] < time.monotonic() - started for task in found)
