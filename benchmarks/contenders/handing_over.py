"""`StoreClient.write` and `write_table`: rows per second of the producer's CPU time, without the broker's."""

from __future__ import annotations

import sys

import kombu

from benchmarks import processes
from benchmarks.contender import Label, Timing
from benchmarks.contenders.drain import OURS_OF_TABLES
from benchmarks.stations import Application
from benchmarks.workloads import Workload


class HandingOver:
    """Runs a producer (`produce`) and takes the CPU time of all its threads.

    That includes encoding, checking and publishing, but not waiting for the broker.
    """

    def __init__(self, application: Application, broker: tuple[str, str], workload: Workload) -> None:
        name, self._url = broker
        call = "StoreClient.write_table" if application is OURS_OF_TABLES else "StoreClient.write"
        self.label = Label(call, name, workload.kind, workload.per_message)
        self._produce, self._workload = application.produce, workload

    def prepare(self) -> None:
        """Do nothing: nobody consumes."""

    def run(self) -> Timing:
        """Hand the rows over, then purge the queue."""
        numbers = map(str, (self._workload.rows, self._workload.per_message, 0, 0))
        command = [sys.executable, "-m", *self._produce, self._workload.kind, *numbers]
        answer = processes.answer(command, processes.environment(BROKER_URL=self._url))
        with kombu.Connection(self._url) as connection:
            connection.default_channel.queue_purge("store.write")
        return Timing(
            self._workload.rows, answer["cpu_s"], {"enqueued_a_second": self._workload.rows / answer["seconds"]}
        )
