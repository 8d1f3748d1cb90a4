"""Everything is killed, stopped and restarted in a random order while rows come in, and the ledger is right at the end.

Every row that a producer's `write` accepted is stored with the newest value of its key. There is no other row, and no
dead letter.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from support.brokers import Broker
from support.ledger_producer import accepted, expected
from support.processes import MDS, PYTHON, Part, Process
from support.requirements import require_rabbitmq
from support.waiting import wait_until
from support.workers import Worker

from market_data_store.local import free_port, start_postgres
from market_data_store.postgres import schema

PRODUCERS = {"plain": "", "confirming": "confirm"}


class World:
    """A broker, a Postgres, two workers, a monitor and two producers, with all the faults that can happen to them."""

    def __init__(self, broker: str, directory: Path, redis_url: str, seed: int) -> None:
        self._directory = directory
        self._chance = random.Random(seed)  # noqa: S311  # no secret
        self.faults: Counter[str] = Counter()
        self.recoveries: list[float] = []
        self._postgres_port = free_port()
        self._start_postgres()
        schema.upgrade(self._postgres.url)
        self._broker = Broker(broker, directory / "broker")
        self._servers = {
            "DATABASE_URL": self._postgres.url,
            "BROKER_URL": self._broker.url,
            # Else a message that a killed worker held would come back after ten minutes.
            "MDS_VISIBILITY_TIMEOUT_S": "10",
        } | ({"REDIS_URL": redis_url} if broker == "rabbitmq" else {})
        self.workers = [Worker(self._servers, directory) for _ in range(2)]
        self.monitor = self._process("monitor", *MDS, "monitor")
        self.producers = {
            name: self._process(name, PYTHON, "-m", "support.ledger_producer", name, directory, confirm)
            for name, confirm in PRODUCERS.items()
        }

    def _process(self, name: str, *command: Part) -> Process:
        return Process(*command, directory=self._directory, environment=self._servers, name=name)

    def stored(self) -> dict[str, dict[int, int]]:
        """Return the stored values by producer and key."""
        found: dict[str, dict[int, int]] = {name: {} for name in PRODUCERS}
        with psycopg.connect(self._postgres.url) as connection:
            for name, key, value in connection.execute("SELECT provider, extract(epoch FROM ts), value FROM signals"):
                found[name][int(key)] = int(value)
        return found

    def expected(self) -> dict[str, dict[int, int]]:
        return {name: expected(accepted(self._directory / f"{name}.ledger")) for name in PRODUCERS}

    def letters(self) -> list[Any]:
        with psycopg.connect(self._postgres.url) as connection:
            return connection.execute("SELECT task_id, reason FROM dead_letters").fetchall()

    def befall(self) -> None:
        """Cause one fault, and measure the time until rows are committed again."""
        fault = self._chance.choice(self._all_faults)
        self.faults[fault.__name__.removeprefix("_")] += 1
        fault()
        before, started = self._newest(), time.monotonic()
        wait_until(
            lambda: self._newest() != before, f"no row is written after {fault.__name__}: {self.logs()}", timeout_s=90
        )
        self.recoveries.append(time.monotonic() - started)

    def settle(self) -> None:
        """Make the producers send what they hold, and wait until all of it is stored."""
        for producer in self.producers.values():
            producer.end(timeout_s=120)
        wait_until(lambda: self.stored() == self.expected(), self.logs, timeout_s=120)

    def end(self) -> None:
        for process in (*self.producers.values(), self.monitor):
            process.kill()
        for worker in self.workers:
            worker.container.kill()
        self._postgres.stop()
        self._broker.stop()

    def logs(self) -> str:
        logs = [producer.whole_text()[-2_000:] for producer in self.producers.values()]
        return "\n---\n".join([*logs, *(worker.whole_log()[-4_000:] for worker in self.workers)])

    def _newest(self) -> dict[str, int]:
        try:
            with psycopg.connect(self._postgres.url, connect_timeout=5) as connection:
                return dict(connection.execute("SELECT provider, max(value) FROM signals GROUP BY 1").fetchall())
        except psycopg.OperationalError:  # it recovers
            return {}

    def _start_postgres(self) -> None:
        self._postgres = start_postgres(self._directory / "postgres", port=self._postgres_port)

    @property
    def _all_faults(self) -> list[Callable[[], None]]:
        return [
            self._pool_process_killed,
            self._pool_process_stopped,
            self._worker_killed,
            self._worker_stopped,
            self._worker_restarted,
            self._monitor_killed,
            self._producer_killed,
            self._postgres_killed,
            self._postgres_stopped,
            self._postgres_restarted,
            self._broker_killed,
            self._broker_stopped,
            self._broker_restarted,
        ]

    def _pool_process(self) -> list[psutil.Process]:
        pids = sorted(self._chance.choice(self.workers).pool_pids)
        return [psutil.Process(self._chance.choice(pids))] if pids else []

    def _pool_process_killed(self) -> None:
        for process in self._pool_process():
            process.kill()

    def _pool_process_stopped(self) -> None:
        self._pause(self._pool_process())

    def _worker_killed(self) -> None:
        worker = self._chance.choice(self.workers)
        worker.container.kill()
        worker.restart()

    def _worker_stopped(self) -> None:
        parent = psutil.Process(self._chance.choice(self.workers).pid)
        self._pause([parent, *parent.children()])

    def _worker_restarted(self) -> None:
        worker = self._chance.choice(self.workers)
        worker.stop()
        worker.restart()

    def _monitor_killed(self) -> None:
        self.monitor.kill()
        self.monitor.start()

    def _producer_killed(self) -> None:
        producer = self._chance.choice([*self.producers.values()])
        producer.kill()
        producer.start()

    def _postgres_killed(self) -> None:
        os.kill(self._postgres.pid, signal.SIGKILL)
        self._postgres.stop()
        self._start_postgres()

    def _postgres_stopped(self) -> None:
        server = psutil.Process(self._postgres.pid)
        self._pause([server, *server.children()])

    def _postgres_restarted(self) -> None:
        self._postgres.stop()
        self._start_postgres()

    def _broker_killed(self) -> None:
        self._broker.kill()
        self._broker.start()

    def _broker_stopped(self) -> None:
        self._pause([psutil.Process(self._broker.pid)])

    def _broker_restarted(self) -> None:
        self._broker.stop()
        self._broker.start()

    def _pause(self, processes: list[psutil.Process]) -> None:
        """Freeze processes without their knowledge: SIGSTOP, then SIGCONT."""
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # a backend whose client went
                process.suspend()
        resume_at = time.monotonic() + self._chance.uniform(0.5, 4.0)
        wait_until(lambda: time.monotonic() > resume_at)
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # one that was resumed may end another
                process.resume()


@pytest.fixture(params=["redis", "rabbitmq"])
def world(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Callable[[int], World]]:
    if request.param == "rabbitmq":
        require_rabbitmq()
    with ExitStack() as stack:

        def make(seed: int) -> World:
            world = World(request.param, tmp_path, redis_url, seed)
            stack.callback(world.end)
            return world

        yield make


@pytest.mark.parametrize("faults", [pytest.param(8, marks=pytest.mark.slow), pytest.param(150, marks=pytest.mark.soak)])
def test_whatever_is_killed_the_ledger_is_right(world: Callable[[int], World], faults: int) -> None:
    lived = world(faults)
    for worker in lived.workers:
        worker.ready()
    wait_until(lambda: all(lived.stored().values()), lived.logs, timeout_s=60)
    for _ in range(faults):
        lived.befall()
    lived.settle()
    counts = {name: accepted(lived._directory / f"{name}.ledger") for name in PRODUCERS}
    sys.stdout.write(  # shown with -s: the figures of docs/reliability.md
        f"\nfaults {dict(lived.faults)}\nrows accepted {counts}, lost 0\n"
        f"longest recovery {max(lived.recoveries):.1f} s\n"
    )
    assert lived.letters() == []
