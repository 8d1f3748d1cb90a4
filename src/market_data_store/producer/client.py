"""`StoreClient`, the producer's side of the store: it takes rows and sends them as `store.write` tasks.

`market_data_store.store_client` is another class: its asynchronous face for market-data-pipeline.

A message costs about a hundred times as much as a row: it is sent when it has 500 rows or 1 MiB, or 30 ms after the
message before it. `write` encodes and checks rows by the worker's code; `outbox` sends them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from celery import Celery

from market_data_store.app import app as store_app
from market_data_store.config import settings
from market_data_store.coordinator.clock import broker_clock
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.datasets import dataset_named
from market_data_store.errors import Backpressure, BrokerUnavailable, InvalidMessage
from market_data_store.producer import tracing
from market_data_store.producer.brake import Brake
from market_data_store.producer.confirming import MOST_BYTES, Confirming
from market_data_store.producer.encoding import encode_defaults, listed, with_moment
from market_data_store.producer.lanes import Lane, queue_of
from market_data_store.producer.leaving import closed_after
from market_data_store.producer.messages import Gathering
from market_data_store.producer.occurrences import Occurrences
from market_data_store.producer.outbox import Outbox
from market_data_store.producer.packing import Packing
from market_data_store.producer.publishing import CONFIRM_TIMEOUT_S, Publisher
from market_data_store.producer.results import results_of
from market_data_store.producer.spool import Spool
from market_data_store.producer.waits import Waits
from market_data_store.protocol import Counts
from market_data_store.wire.fields import fields_of

logger = logging.getLogger(__name__)

#: With a spool, `write` waits at most this many seconds for the broker to take the messages that it filled.
_TAKEN_TIMEOUT_S = 1.0
_NO_SPOOLED = "StoreClient.spooled is deprecated and will be removed in version 0.6; use pending_rows"


class StoreClient:
    """Hand over rows and let the store write them: `with StoreClient() as store: store.write("bars", rows)`.

    Rows are dicts, dataclasses, msgspec Structs or Core's models (Bar, Quote, Trade, OptionSnapshot). `datasets` has
    the fields of each dataset and their aliases. `defaults` fills fields that rows leave out
    (`defaults={"provider": "ibkr", "interval": "1m"}`).

    The client keeps each row until the broker has confirmed it. With `confirm=True` it keeps the row until its task's
    result says that it is committed, and re-sends it when no result arrives. Rows are kept in memory, or in the file
    `spool`; if this process dies, the next client with that path sends them. With both options, a row for which `write`
    returned is in Postgres or still in the spool, whatever dies. docs/producing.md has the details and the costs.
    A client is thread-safe.
    """

    def __init__(
        self,
        *,
        lane: Lane = "live",
        defaults: Mapping[str, Any] | None = None,
        max_rows: int = 500,
        max_bytes: int = 1024 * 1024,
        linger_s: float | None = None,
        confirm: bool = False,
        confirm_timeout_s: float = 60.0,
        spool: str | Path | None = None,
        spool_max_bytes: int = 1024**3,
        close_timeout_s: float = 10.0,
        check: bool = True,
        tables_as_rows: bool = False,
        on_pressure: Literal["block", "raise", "spool", "ignore"] = "block",
        pressure_timeout_s: float = 60.0,
        capacity: int | None = None,
        declare: bool = True,
        app: Celery | None = None,
    ) -> None:
        """`lane="backfill"` is for history, and delays no live row. `linger_s` is how long the first row of a message
        waits for others; with None until 30 ms after the message before, so that a row after a pause waits for nothing.
        `spool` is the path of a file that one client at a time can use; `spool_max_bytes` bounds the rows in it.

        The client reads its lane's depth itself. At soft it sends at half its rate. At hard, `on_pressure` decides:
        `"block"` lets `write` wait for up to `pressure_timeout_s` and then raise `Backpressure`, `"raise"` raises it at
        once, `"spool"` puts the rows into the spool, where they wait for the queue, and `"ignore"` sends them.
        `capacity` is MDS_QUEUE_CAPACITY unless given, or MDS_BACKFILL_CAPACITY.

        With `confirm=True`, rows without a result are re-sent after `confirm_timeout_s`, doubled at each try up to 16
        times that, and only while the queue is at or below its lower watermark: results behind a backlog are late.

        With `check=False` rows are sent unchecked, and the worker makes dead letters of bad ones. With
        `tables_as_rows=True` `write_table` sends rows: workers of version 0.4 without pyarrow refuse tables.
        `declare=False` leaves the queue to the workers, and needs fewer rights.
        Raises `SpoolUnavailable`, and `ConfigurationError` without a broker, or without results for `confirm=True`.
        """
        if on_pressure == "spool" and spool is None:
            raise InvalidMessage("on_pressure='spool' needs a spool; give StoreClient(spool=PATH)")
        self._app, self._queue = app or store_app, queue_of(lane)
        if app is None:
            settings().require_broker_url()
        tracing.begin()
        self._defaults = dict(defaults or {})
        self._packing = Packing(max_rows, max_bytes, check=check)
        self._pressure_timeout_s = 0.0 if on_pressure == "raise" else pressure_timeout_s
        self._flush_timeout_s, self._close_timeout_s = None if spool is None else pressure_timeout_s, close_timeout_s
        self._has_spool, self._write_waits = spool is not None, on_pressure in ("block", "raise")
        self._tables_as_rows, self._closed, self._waits = tables_as_rows, False, Waits()
        #: One call of `write` at a time. The outbox has its own lock: its thread keeps sending meanwhile.
        self._writing = threading.Lock()
        inspector = QueueInspector(self._app, self._queue, write_timeout_s=CONFIRM_TIMEOUT_S)
        self._brake = Brake.of(inspector, capacity, has_spool=self._has_spool)
        self._clock = broker_clock(self._app)
        results = results_of(self._app, inspector) if confirm else None
        self._confirming = None if results is None else Confirming(results, confirm_timeout_s, self._brake.room)
        self._outbox = Outbox(
            Publisher(self._app, inspector, on_sent=self._brake.served.sent, declare=declare),
            Gathering(max_rows, max_bytes, linger_s, queue=self._queue, clock=self._clock.now),
            brake=None if on_pressure == "ignore" else self._brake,
            spool=None if spool is None else Spool(spool, spool_max_bytes),
            confirming=self._confirming,
        )

    def write(
        self,
        dataset: str,
        rows: Iterable[Any],
        *,
        defaults: Mapping[str, Any] | None = None,
        occurrences: Occurrences | None = None,
    ) -> int:
        """Take rows for a dataset; returns how many. Takes all of them, or raises and takes none.

        Equal ticks or quotes without an id are different ones in one call, and in calls with the same `occurrences`.
        With a spool the rows are in it when this returns, and an unreachable broker neither delays nor raises.

        Raises `InvalidMessage` (dataset unknown, rows not a list, defaults wrong), `InvalidRow` (which row, field and
        value), `Backpressure`, `SpoolFull`, `SpoolUnavailable`, and, without a spool, `BrokerUnavailable` while
        messages of earlier calls cannot be sent.
        """
        target = dataset_named(dataset)
        standard, named = encode_defaults(target, {**self._defaults, **(defaults or {})})
        given = listed(rows)
        self._refresh_clock()
        if any(f.rule.enqueued_at for f in fields_of(target)):
            given = [with_moment(row, self._clock.now()) for row in given]
        with tracing.written(target.name, len(given)), self._writing:
            self._admit()
            room = self._outbox.room(target.name, named)
            parts = list(self._packing.rows(target, given, standard, room, occurrences))
            self._send(self._outbox.take(target.name, named, parts))
        return len(given)

    def write_table(self, dataset: str, table: Any, *, defaults: Mapping[str, Any] | None = None) -> int:
        """Take a table's rows, as `write` does, but check and send them as columns.

        `table` is a frame of pyarrow, polars, pandas or DuckDB, any other object that gives an Arrow stream, or a
        mapping of columns. Its columns are named as the fields of rows. It is sent at once, in messages of 5,000 rows
        that share no message with the rows of `write`.
        """
        from market_data_store.producer.tables import frame_of, table_parts  # Arrow: 40 MB that rows do not need

        target = dataset_named(dataset)
        standard, named = encode_defaults(target, {**self._defaults, **(defaults or {})})
        frame = frame_of(table)
        if self._tables_as_rows:
            return self.write(dataset, frame.table.to_pylist(), defaults=defaults)
        self._refresh_clock()
        with tracing.written(target.name, len(frame)), self._writing:
            self._admit()
            parts = table_parts(self._packing, target, frame, standard, named)
            self._send(self._outbox.take(target.name, named, list(parts), columnar=True))
        return len(frame)

    async def write_async(self, dataset: str, rows: Iterable[Any], *, defaults: Mapping[str, Any] | None = None) -> int:
        """As `write`, for coroutines: the event loop keeps running while the client waits."""
        return await asyncio.to_thread(self.write, dataset, rows, defaults=defaults)

    def flush(self) -> None:
        """Send all rows that are waiting. Raises `BrokerUnavailable` when that fails, and keeps the rows.

        With a spool it raises `Backpressure` when the broker does not take all rows within `pressure_timeout_s`.
        """
        self._outbox.fill()
        if not self._outbox.until_taken(timeout_s=self._flush_timeout_s):
            raise Backpressure(f"the queue is full: {self._outbox.rows:,} rows are kept in the spool and sent later")

    def close(self) -> None:
        """Flush, and take no more rows. Idempotent.

        Without a spool it raises `BrokerUnavailable` when rows could not be sent, with how many are lost. With a spool
        it waits at most `close_timeout_s` until the rows are safe, leaves the others for the next client, and says so.
        """
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + self._close_timeout_s
        try:
            self._outbox.fill()
            taken = self._outbox.until_taken(timeout_s=self._close_timeout_s if self._has_spool else None)
            if self._has_spool and taken and self._confirming is not None:
                self._outbox.until_confirmed(max(0.0, deadline - time.monotonic()))
        except BrokerUnavailable as error:
            if not self._has_spool:
                raise self._outbox.lost() from error.__cause__
        finally:
            self._outbox.stop(timeout_s=max(1.0, deadline - time.monotonic()))
            self._brake.close()

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        """Close; an error of the block stays, with what `close` has raised as a note."""
        closed_after(exc, self.close)

    @property
    def pending_rows(self) -> int:
        """Rows that are not yet safe, and therefore kept: in the spool, or in memory where there is none."""
        return self._outbox.rows

    @property
    def spooled(self) -> int:
        """Deprecated: use `pending_rows`."""
        warnings.warn(_NO_SPOOLED, DeprecationWarning, stacklevel=2)
        return self.pending_rows

    @property
    def sent(self) -> int:
        """With `confirm=True`: how many rows the broker took."""
        return self._tracked.sent

    @property
    def confirmed(self) -> Counts:
        """With `confirm=True`: what became of the rows so far. One that was sent twice can count as `unchanged`."""
        return self._tracked.counts

    @property
    def safe(self) -> int:
        """With `confirm=True`: the results of so many rows have arrived, counted from the first that was sent."""
        return self._tracked.safe

    @property
    def rejecting(self) -> dict[str, int]:
        """With `confirm=True`: the tasks that left dead letters, and how many rows had been sent before each."""
        return self._tracked.rejecting

    def confirm(self, timeout_s: float = 0.0) -> bool:
        """With `confirm=True`: wait for the results of all sent messages; returns whether all are there."""
        _ = self._tracked
        return self._outbox.until_confirmed(timeout_s)

    @property
    def _tracked(self) -> Confirming:
        if self._confirming is None:
            raise InvalidMessage("the client does not follow results; make it with StoreClient(confirm=True)")
        return self._confirming

    def _refresh_clock(self) -> None:
        # With a spool, an unreachable broker must not delay the caller.
        if not (self._has_spool and self._outbox.is_away):
            self._clock.refresh()

    def _admit(self) -> None:
        """Wait until rows may be taken, or raise."""
        if self._closed:
            raise InvalidMessage("the client is closed; make another StoreClient")
        if self._write_waits:
            self._brake.wait_for_room(self._pressure_timeout_s)
        if self._has_spool:
            return
        if self._outbox.waits:
            self._outbox.until_taken()
        if self._confirming is not None and not self._outbox.until_confirmed(0.0, bytes_left=MOST_BYTES):
            with self._waits.wait() as waits:
                waits(lambda: "the results of the rows in memory have not come", at_once=True)
                if not self._outbox.until_confirmed(self._pressure_timeout_s, bytes_left=MOST_BYTES):
                    raise self._confirming.backlog()

    def _send(self, full: range) -> None:
        """Release these messages at the pace of the queue; after the time-out all of them, as their rows are taken."""
        in_time = True
        try:
            for number in full:
                in_time = in_time and (not self._write_waits or self._brake.wait_to_send(self._pressure_timeout_s))
                self._outbox.release(number)
                if not self._has_spool:
                    self._outbox.until_taken(number)
                elif in_time and not self._outbox.is_away:
                    in_time = self._outbox.until_taken(number, _TAKEN_TIMEOUT_S)
        except BrokerUnavailable as error:  # the rows are taken; the outbox keeps trying
            if not self._has_spool:
                logger.warning("%s", error)
        finally:
            self._outbox.release(math.inf)
