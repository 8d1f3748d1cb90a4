"""A worker counts when it consumes the queue, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import Celery
from support.brokers import slow_on_rabbitmq
from support.fixtures.store import StartWorker
from support.processes import PYTHON, run, running
from support.waiting import wait_until
from support.workers import Worker

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE

#: A worker of somebody else's on the same broker.
FOREIGN = """
from celery import Celery
app = Celery("foreign", broker=BROKER)
app.conf.task_create_missing_queue_type = "quorum"  # RabbitMQ refuses another type than that of the queue that is there
"""


@contextmanager
def foreign_worker(directory: Path, broker_url: str, queue: str) -> Iterator[None]:
    (directory / "foreign.py").write_text(FOREIGN.replace("BROKER", repr(broker_url)))
    options = ("--pool=solo", f"--queues={queue}", "--hostname=foreign@%h")
    with running(PYTHON, "-m", "celery", "-A", "foreign", "worker", *options, directory=directory):
        yield


def answering(producer: Celery) -> set[str]:
    """The workers of any queue that answer a ping, by the part of their name before the @."""
    return {name.partition("@")[0] for reply in producer.control.ping(timeout=1.0) or [] for name in reply}


@slow_on_rabbitmq
def test_a_worker_of_another_queue_does_not_count(
    broker_url: str, producer: Celery, queue: QueueInspector, tmp_path: Path
) -> None:
    with foreign_worker(tmp_path, broker_url, "elsewhere"):
        wait_until(lambda: "foreign" in answering(producer), "the foreign worker answers", timeout_s=60)
        assert queue.workers() == []
    with foreign_worker(tmp_path, broker_url, QUEUE):  # whatever it is called, it takes messages
        wait_until(lambda: [name.partition("@")[0] for name in queue.workers()] == ["foreign"], timeout_s=60)


@slow_on_rabbitmq
def test_one_round_finds_the_workers_of_each_lane(
    broker_url: str, worker: Worker, queue: QueueInspector, tmp_path: Path
) -> None:
    with foreign_worker(tmp_path, broker_url, BACKFILL_QUEUE):

        def names() -> dict[str, set[str]]:
            found = queue.consumers(BACKFILL_QUEUE).items()
            return {lane: {name.partition("@")[0] for name in names} for lane, names in found}

        wait_until(lambda: names()[QUEUE] and "foreign" in names()[BACKFILL_QUEUE], "both answer", timeout_s=60)
        assert "foreign" not in names()[QUEUE]


@slow_on_rabbitmq
def test_a_worker_that_stops_consuming_does_not_count(
    broker_url: str, start_worker: StartWorker, queue: QueueInspector, database_url: str, tmp_path: Path
) -> None:
    start_worker(MDS_REMOTE_CONTROL="true")
    (name,) = wait_until(queue.workers, "the worker answers")
    environment = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    for order, expected in (("cancel_consumer", []), ("add_consumer", [name])):
        command = (PYTHON, "-m", "celery", "-A", "market_data_store.app", "control", order, QUEUE)
        assert run(*command, directory=tmp_path, environment=environment).returncode == 0
        wait_until(lambda: queue.workers() == expected, order)  # noqa: B023  # it is over before the next round
