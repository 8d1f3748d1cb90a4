"""A producer is killed while it writes, its broker with all its data, and a worker: no accepted row is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from support.brokers import Broker
from support.databases import Connection
from support.fixtures.store import WORKERS
from support.processes import PYTHON, Process, run
from support.workers import Worker, working

PRODUCER = """
import os, random, sys
from market_data_store import StoreClient
spool, first, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
chance = random.Random(seed)
defaults = {"provider": "p", "symbol": "S", "name": "n", "time_unit": "s"}
store = StoreClient(spool=spool, confirm=True, confirm_timeout_s=1, defaults=defaults)
while True:
    end = first + chance.choice([1, 1, 2, 30, 499, 700])
    store.write("signals", [{"ts": n, "value": n} for n in range(first, end)])
    first = end
    os.write(1, b"%d\\n" % first)
"""

#: Sends what the others left.
SUCCESSOR = """
import sys, time
from market_data_store import StoreClient
store = StoreClient(spool=sys.argv[1], confirm=True, confirm_timeout_s=1)
while store.pending_rows:
    time.sleep(0.05)
store.close()
"""


class Producer(Process):
    """Writes rows numbered from `first` on, and says after each `write` how far it is."""

    def __init__(self, broker: Broker, spool: Path, first: int, seed: str) -> None:
        super().__init__(
            *(PYTHON, "-c", PRODUCER, spool, str(first), seed),
            directory=spool.parent,
            environment={"BROKER_URL": broker.url},
            output_apart=True,
        )
        self._first = first
        self._calls = 0

    def go_on(self, calls: int) -> None:
        """Until `write` returned so often."""
        self._calls += calls
        self.wait_for_line(self._calls)

    @property
    def accepted(self) -> int:
        """The number behind the last row that `write` took."""
        lines = self.lines()
        return int(lines[-1]) if lines else self._first


@contextmanager
def producing(broker: Broker, spool: Path, first: int, seed: str) -> Iterator[Producer]:
    """Killed at the end, whatever it is doing then."""
    process = Producer(broker, spool, first, seed)
    try:
        yield process
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL, process.said("a producer that goes on")


@pytest.mark.slow
def test_what_a_killed_producer_wrote_is_in_postgres_after_the_next_start(
    request: pytest.FixtureRequest, broker: Broker, database_url: str, database: Connection, tmp_path: Path
) -> None:
    with working(tmp_path, DATABASE_URL=database_url, BROKER_URL=broker.url) as worker:
        request.node.stash[WORKERS] = [worker]
        be_killed_in_turn(broker, worker, database, tmp_path / "spool.db")


def be_killed_in_turn(broker: Broker, worker: Worker, database: Connection, spool: Path) -> None:
    chance = Random(f"{broker.kind} 1")  # noqa: S311  # no secret
    accepted = 0
    for life, dies in enumerate(("producer", "worker", "broker", "producer")):
        with producing(broker, spool, accepted, str(life)) as writer:
            writer.go_on(chance.randrange(1, 60))
            if dies == "worker":
                worker.kill()
            elif dies == "broker":
                broker.lose()
            writer.go_on(chance.randrange(1, 40))
        assert writer.accepted > accepted
        accepted = writer.accepted
        if dies == "worker":
            worker.restart()
        elif dies == "broker":
            broker.start()
    successor = run(PYTHON, "-c", SUCCESSOR, spool, directory=spool.parent, environment={"BROKER_URL": broker.url})
    assert successor.returncode == 0, successor
    query = "SELECT count(*) FROM signals WHERE value = extract(epoch FROM ts) AND value < %s"
    assert database.execute(query, [accepted]).fetchall() == [(accepted,)]
    assert database.execute("SELECT FROM dead_letters").fetchall() == []
