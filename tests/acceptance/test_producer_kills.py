"""A producer is killed while it writes, its broker with all its data, and a worker: no accepted row is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from conftest import WORKERS, Connection
from support.brokers import Broker
from support.workers import Worker

from market_data_store.local import end_with_parent

PRODUCER = """
import os, random, sys
from market_data_store import StoreClient
spool, first, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
chance = random.Random(seed)
defaults = {"provider": "p", "symbol": "S", "name": "n"}
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


class Producer:
    """Writes rows numbered from `first` on, and says after each `write` how far it is."""

    def __init__(self, broker: Broker, spool: Path, first: int, seed: str) -> None:
        self.accepted = first
        self._process = start(broker, PRODUCER, str(spool), str(first), seed)

    def go_on(self, calls: int) -> None:
        """Until `write` returned so often."""
        assert self._process.stdout is not None
        for _ in range(calls):
            line = self._process.stdout.readline()
            assert line, "the producer ended by itself"
            self.accepted = int(line)

    def kill(self) -> None:
        self._process.kill()
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                self.accepted = int(line)
        self._process.stdout.close()
        assert self._process.wait() == -signal.SIGKILL


def start(broker: Broker, script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=Path(arguments[0]).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "BROKER_URL": broker.url},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent(signal.SIGKILL),
    )


@contextmanager
def producer(broker: Broker, spool: Path, first: int, seed: str) -> Iterator[Producer]:
    """Killed at the end, whatever it is doing then."""
    process = Producer(broker, spool, first, seed)
    try:
        yield process
    finally:
        process.kill()


@pytest.fixture
def worker(request: pytest.FixtureRequest, broker: Broker, database_url: str, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker({"DATABASE_URL": database_url, "BROKER_URL": broker.url}, tmp_path)
    request.node.stash[WORKERS] = [worker]
    yield worker
    worker.container.kill()


def test_what_a_killed_producer_wrote_is_in_postgres_after_the_next_start(
    broker: Broker, worker: Worker, database: Connection, tmp_path: Path
) -> None:
    chance = Random(f"{broker.kind} 1")  # noqa: S311  # no secret
    spool = tmp_path / "spool.db"
    accepted = 0
    for life, dies in enumerate(("producer", "worker", "broker", "producer")):
        with producer(broker, spool, accepted, str(life)) as writer:
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
    with start(broker, SUCCESSOR, str(spool)) as successor:
        assert successor.wait(60) == 0
    query = "SELECT count(*) FROM signals WHERE value = extract(epoch FROM ts) AND value < %s"
    assert database.execute(query, [accepted]).fetchall() == [(accepted,)]
    assert database.execute("SELECT FROM dead_letters").fetchall() == []
