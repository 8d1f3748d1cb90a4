"""A worker counts when it consumes the queue, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery
from conftest import StartWorker
from nodes import running, until

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.protocol import QUEUE

#: A worker of somebody else's on the same broker.
FOREIGN = """
from celery import Celery
app = Celery("foreign", broker=BROKER)
"""


@contextmanager
def foreign_worker(directory: Path, broker_url: str, queue: str) -> Iterator[None]:
    (directory / "foreign.py").write_text(FOREIGN.replace("BROKER", repr(broker_url)))
    command = ["celery", "-A", "foreign", "worker", "--pool=solo", f"--queues={queue}", "--hostname=foreign@%h"]
    path = os.pathsep.join([str(directory), *filter(None, sys.path)])
    with running(command, {"PYTHONPATH": path}, directory):
        yield


def answering(producer: Celery) -> set[str]:
    """The workers of any queue that answer a ping, by the part of their name before the @."""
    return {name.partition("@")[0] for reply in producer.control.ping(timeout=1.0) or [] for name in reply}


def test_a_worker_of_another_queue_does_not_count(
    broker_url: str, producer: Celery, queue: QueueInspector, tmp_path: Path
) -> None:
    with foreign_worker(tmp_path, broker_url, "elsewhere"):
        until(lambda: "foreign" in answering(producer), "the foreign worker answers", timeout_s=60)
        assert queue.workers() == []
    with foreign_worker(tmp_path, broker_url, QUEUE):  # whatever it is called, it takes messages
        until(lambda: [name.partition("@")[0] for name in queue.workers()] == ["foreign"], timeout_s=60)


def test_a_worker_that_stops_consuming_does_not_count(
    broker_url: str, start_worker: StartWorker, queue: QueueInspector, database_url: str, tmp_path: Path
) -> None:
    start_worker()
    (name,) = queue.workers()
    control: list[Any] = [sys.executable, "-m", "celery", "-A", "market_data_store.app", "control"]
    environment = {**os.environ, "BROKER_URL": broker_url, "DATABASE_URL": database_url}
    for order, expected in (("cancel_consumer", []), ("add_consumer", [name])):
        subprocess.run([*control, order, QUEUE], cwd=tmp_path, env=environment, check=True, capture_output=True)
        until(lambda expected=expected: queue.workers() == expected, order)  # type: ignore[misc]
