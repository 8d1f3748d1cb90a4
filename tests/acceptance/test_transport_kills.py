"""Nothing that a worker took is lost, however it ends: whole workers killed, frozen and cut off under load.

A short version belongs to `pytest -m slow`; `pytest -m soak tests/acceptance/test_transport_kills.py` gives the figures
of docs/reliability.md.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import kombu
import pytest
import redis
from celery import Celery
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, HoldBack, StartWorker
from support.waiting import wait_until
from support.workers import Worker

from market_data_store.coordinator.queue import QueueInspector

#: One message a transaction, as if nothing were merged.
TASK_BY_TASK = {"MDS_BATCH_ROWS": "1", "MDS_PREFETCH_MESSAGES": "8"}
COALESCED: dict[str, str] = {}
#: The application with Celery's own transports.
STOCK = "support.stock_transport"

#: Seconds after which Redis's messages come back from a worker that was killed.
VISIBILITY_TIMEOUT_S = 3


@dataclass
class Run:
    """A worker at a queue full of messages of one row each, no two of them equal."""

    producer: Celery
    database: Connection
    queue: QueueInspector
    url: str
    sent: int = 0

    def send(self, messages: int) -> None:
        price = {"provider": "CME", "symbol": "6EH4", "interval": "1m", "open": 1, "high": 1, "low": 1, "close": 1}
        with self.producer.amqp.producer_pool.acquire() as publisher:
            for number in range(self.sent, self.sent + messages):
                row = {**price, "ts": 946_684_800 + 60 * number}  # a minute each, from 2000 on
                self.producer.send_task(TASK, args=["bars", [row]], queue=QUEUE, ignore_result=True, producer=publisher)
        self.sent += messages

    def stored(self) -> int:
        found = self.database.execute("SELECT count(*) FROM bars_ohlcv").fetchone()
        assert found
        return int(found[0])

    def nothing_waits(self) -> bool:
        """Neither in the queue nor with a worker; RabbitMQ only tells the first."""
        if self.queue.depth():
            return False
        if not self.url.startswith("redis"):
            return self.stored() == self.sent
        # What a killed worker held comes back when its time is over and somebody looks: here no need to wait for that.
        options = {"visibility_timeout": VISIBILITY_TIMEOUT_S}
        with kombu.Connection(self.url, transport_options=options) as connection, closing(connection.channel()) as c:
            c.qos.restore_visible(num=None, interval=1)
        # A message may move from one to the other between two questions.
        return not any(self.queue.depth() or self.queue.reserved() for _ in range(3))


Fault = Callable[[Run, Worker], None]


def kill(run: Run, worker: Worker) -> None:
    worker.kill()
    worker.restart()


def cut_off(run: Run, worker: Worker) -> None:
    with redis.Redis.from_url(run.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)


def freeze_and_kill(run: Run, worker: Worker) -> None:
    """When it waits for messages: the broker hands them to a frozen worker as to any other."""
    wait_until(run.nothing_waits, timeout_s=300)
    os.killpg(worker.pid, signal.SIGSTOP)
    run.send(20)
    kill(run, worker)


@dataclass(frozen=True)
class Case:
    broker: str
    environment: dict[str, str]
    messages: int
    faults: Sequence[Fault]
    module: str = "market_data_store.app"

    @property
    def may_lose(self) -> bool:
        return self.module == STOCK


KILLS, CUTS, FREEZES = [kill] * 25, [cut_off] * 25, [freeze_and_kill] * 8
SHORT = {
    "redis-coalesced": Case("redis", COALESCED, 2_000, [kill, cut_off, kill, freeze_and_kill]),
    "redis-task_by_task": Case("redis", TASK_BY_TASK, 300, [kill]),
}
LONG = {
    "redis-coalesced-killed": Case("redis", COALESCED, 24_000, KILLS),
    "redis-task_by_task-killed": Case("redis", TASK_BY_TASK, 24_000, KILLS),
    "redis-coalesced-cut_off": Case("redis", COALESCED, 24_000, CUTS),
    "redis-coalesced-frozen": Case("redis", COALESCED, 1_000, FREEZES),
    "rabbitmq-coalesced-killed": Case("rabbitmq", COALESCED, 24_000, KILLS),
    "rabbitmq-task_by_task-killed": Case("rabbitmq", TASK_BY_TASK, 24_000, KILLS),
    "stock-coalesced-killed": Case("redis", COALESCED, 24_000, KILLS, module=STOCK),
    "stock-task_by_task-killed": Case("redis", TASK_BY_TASK, 24_000, KILLS, module=STOCK),
    "stock-coalesced-cut_off": Case("redis", COALESCED, 24_000, CUTS, module=STOCK),
    "stock-coalesced-frozen": Case("redis", COALESCED, 1_000, FREEZES, module=STOCK),
}
PARAMETERS = [
    pytest.param(case, case.broker, id=f"short-{name}", marks=pytest.mark.slow) for name, case in SHORT.items()
]
PARAMETERS += [pytest.param(case, case.broker, id=name, marks=pytest.mark.soak) for name, case in LONG.items()]


@pytest.mark.parametrize(("case", "broker_url"), PARAMETERS, indirect=["broker_url"])
def test_nothing_is_lost(
    case: Case,
    broker_url: str,
    producer: Celery,
    queue: QueueInspector,
    start_worker: StartWorker,
    database: Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run(producer, database, queue, broker_url)
    run.send(case.messages)
    worker = start_worker(module=case.module, MDS_VISIBILITY_TIMEOUT_S=str(VISIBILITY_TIMEOUT_S), **case.environment)
    for number, fault in enumerate(case.faults, 1):
        enough = run.sent * number // (len(case.faults) + 1)
        wait_until(lambda: run.stored() >= enough or run.nothing_waits(), timeout_s=300)  # noqa: B023  # called at once
        fault(run, worker)
    wait_until(lambda: run.stored() == run.sent or run.nothing_waits(), timeout_s=300)
    lost = run.sent - run.stored()
    again = sum(map(int, re.findall(r"(\d+) unchanged", worker.whole_log())))
    with capsys.disabled():
        print(f" {run.sent:,} messages, {len(case.faults)} faults: {lost} lost, {again} written again ", end="")  # noqa: T201
    assert not database.execute("SELECT reason FROM dead_letters").fetchall()
    if not case.may_lose:
        assert lost == 0


@pytest.mark.slow
def test_a_worker_ends_in_time_under_load_and_gives_back_what_is_not_written(
    broker_url: str, producer: Celery, queue: QueueInspector, start_worker: StartWorker, database: Connection
) -> None:
    run = Run(producer, database, queue, broker_url)
    run.send(1_000)
    worker = start_worker()
    wait_until(lambda: run.stored() >= 300, timeout_s=120)
    worker.stop(timeout_s=25)  # Celery's own way out takes 32 s at about each second try
    wait_until(lambda: run.stored() + queue.depth() == run.sent, "what is committed was acknowledged")


@pytest.mark.soak
def test_a_worker_ends_in_time_when_postgres_does_not_answer(
    broker_url: str,
    producer: Celery,
    queue: QueueInspector,
    start_worker: StartWorker,
    database: Connection,
    writes_held_back: HoldBack,
) -> None:
    run = Run(producer, database, queue, broker_url)
    worker = start_worker()
    with writes_held_back() as until_held:
        run.send(300)
        until_held(2)
        worker.stop(timeout_s=25)
        wait_until(lambda: queue.depth() == 300)
