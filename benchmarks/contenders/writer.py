"""Only our writer: writes prepared messages into the table, in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from benchmarks.contender import Label, Timing, fill
from benchmarks.database import Database
from benchmarks.workloads import Workload
from market_data_store.config import Settings
from market_data_store.datasets import DATASETS
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.wire.columns import DecodedRows
from market_data_store.wire.rows import read_rows

_POSTGRES_EPOCH_S = 946_684_800


class OurWriter:
    """Calls `Writer.write` with as many messages per transaction as a worker merges, or with one.

    With `decodes` the messages are JSON text, and decoding them is timed too. Then this is everything that a pool
    process does, without Celery and the broker.
    """

    def __init__(self, database: Database, workload: Workload, *, merges: bool = True, decodes: bool = False) -> None:
        rows = max(workload.per_message, Settings.model_fields["batch_rows"].default) if merges else 0
        self._messages_a_write = max(1, rows // workload.per_message)
        name = "our decoding and writer" if decodes else "our writer"
        size = self._messages_a_write * workload.per_message
        self.label = Label(f"{name}, {size:,} rows a commit", kind=workload.kind)
        self._database, self._workload, self._decodes = database, workload, decodes
        self._texts: list[bytes] = []
        self._batches: list[tuple[DecodedRows, list[DecodedMessage]]] = []
        self._writer = Writer(database.url)

    def prepare(self) -> None:
        """Fill the table, prepare the messages, and open the connection."""
        fill(self._database, self._workload)
        self._texts = [json.dumps([bar.to_json() for bar in message]).encode() for message in self._workload.messages()]
        self._batches = [] if self._decodes else list(map(_batch, self._chunks()))
        self._writer.write(*_batch([b"[]"]))

    def run(self) -> Timing:
        """Write the messages."""
        started = time.perf_counter()
        for decoded_rows, messages in map(_batch, self._chunks()) if self._decodes else self._batches:
            self._writer.write(decoded_rows, messages)
        seconds = time.perf_counter() - started
        self._writer.close()
        return Timing(self._workload.rows, seconds)

    def _chunks(self) -> Iterator[list[bytes]]:
        for start in range(0, len(self._texts), self._messages_a_write):
            yield self._texts[start : start + self._messages_a_write]


def _batch(texts: list[bytes]) -> tuple[DecodedRows, list[DecodedMessage]]:
    bars = DATASETS["bars"]
    messages = []
    for text in texts:
        enqueued_at = round((time.time() - _POSTGRES_EPOCH_S) * 1e6)
        messages.append(
            DecodedMessage(task_id="", dataset=bars, rows=read_rows(bars, text, {}), enqueued_at=enqueued_at)
        )
    return decoded(bars, messages), messages
