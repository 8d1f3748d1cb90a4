"""The producer's side: rows go in, and into the store as `store.write` tasks.

A message costs about a hundred times what a row costs, so rows travel by the hundred: a message goes when it has 500
rows or 1 MiB, or 50 ms after its first row. Rows are encoded and checked when they are handed over, by the code that
the worker runs: what `StoreClient.write` took is not rejected for its form later. How rows become messages stands in
`gathering`; how they are sent, and kept until they are safe, in `outbox`.
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
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from celery import Celery

from market_data_store.app import app as store_app
from market_data_store.config import settings
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.watermarks import Watermarks
from market_data_store.datasets import dataset_named
from market_data_store.errors import Backpressure, BrokerUnavailable, InvalidMessage
from market_data_store.producer.brake import Brake
from market_data_store.producer.confirming import Confirming
from market_data_store.producer.encoding import listed, with_moment
from market_data_store.producer.messages import Gathering
from market_data_store.producer.outbox import Outbox
from market_data_store.producer.packing import Packing
from market_data_store.producer.publishing import Publisher
from market_data_store.producer.results import results_of
from market_data_store.producer.spool import Spool
from market_data_store.producer.throttle import Throttle
from market_data_store.protocol import QUEUE, Counts
from market_data_store.wire.arrow import frame_of
from market_data_store.wire.fields import fields_of

logger = logging.getLogger(__name__)

#: With a spool, `write` waits at most so long for the broker to take what it filled: the rows are safe already.
_TAKEN_TIMEOUT_S = 1.0
#: Without a spool, so many bytes of rows wait in memory for their confirmation; then `write` waits.
_UNCONFIRMED_BYTES = 256 * 1024 * 1024


class StoreClient:
    """Hand over rows and let the store write them: `with StoreClient() as store: store.write("bars", rows)`.

    Rows are dicts, dataclasses, msgspec Structs or Core's models (Bar, Quote, Trade, OptionSnapshot); the fields and
    aliases of a dataset stand in `datasets`. `defaults` fills what rows leave out, for all of them
    (`defaults={"provider": "ibkr", "interval": "1m"}`).

    A row that `write` took is kept until the broker confirmed it; with `confirm=True` until its task's result says that
    it is committed, and is sent again when no result comes. It is kept in memory, or in the file `spool`, from where
    the next client with that path sends it if this process dies. With both, a row for which `write` returned is in
    Postgres or still in the spool, whatever dies. docs/producing.md says more, and what it costs.

    Threads may share a client.
    """

    def __init__(
        self,
        *,
        defaults: Mapping[str, Any] | None = None,
        max_rows: int = 500,
        max_bytes: int = 1024 * 1024,
        linger_s: float = 0.05,
        confirm: bool = False,
        confirm_timeout_s: float = 60.0,
        spool: str | Path | None = None,
        spool_max_bytes: int = 1024**3,
        close_timeout_s: float = 10.0,
        check: bool = True,
        on_pressure: Literal["block", "raise", "spool", "ignore"] = "block",
        pressure_timeout_s: float = 60.0,
        capacity: int | None = None,
        app: Celery | None = None,
    ) -> None:
        """`linger_s` is how long the first row of a message waits for others.

        The client looks at the queue itself. At soft it sends at half its rate. At hard `write` waits for up to
        `pressure_timeout_s`, and then raises `Backpressure`, or raises it at once (`on_pressure="raise"`), or takes the
        rows into the spool, where they wait for the queue (`"spool"`). `capacity` is MDS_QUEUE_CAPACITY unless given.

        With `confirm=True`, rows without a result are sent again after `confirm_timeout_s`, doubled at each try up to
        16 times that, and only while the queue is at most at its lower mark: behind a backlog, results are just late.

        `spool` is a file's path, for one client at a time; `spool_max_bytes` bounds the rows in it. With a spool
        `close` waits at most `close_timeout_s`.

        With `check=False` rows are sent as they are, and the worker makes dead letters of bad ones.
        Raises `ConfigurationError` when no broker is configured, or no place for results with `confirm=True`, and
        `SpoolUnavailable`.
        """
        if on_pressure == "spool" and spool is None:
            raise InvalidMessage("on_pressure='spool' needs a spool; give StoreClient(spool=PATH)")
        self._app = app or store_app
        if app is None:
            settings().require_broker_url()
        self._defaults = dict(defaults or {})
        self._packing = Packing(max_rows, max_bytes, check=check)
        self._pressure_timeout_s = 0.0 if on_pressure == "raise" else pressure_timeout_s
        self._flush_timeout_s = None if spool is None else pressure_timeout_s
        self._close_timeout_s = close_timeout_s
        self._has_spool = spool is not None
        self._write_waits = on_pressure in ("block", "raise")
        self._closed = False
        #: One call of `write` at a time; the outbox has its own lock, for its thread goes on meanwhile.
        self._writing = threading.Lock()
        throttle = Throttle(capacity or settings().queue_capacity, Watermarks.of(settings()))
        self._brake = Brake(throttle, QueueInspector(self._app, QUEUE), has_spool=self._has_spool)
        results = results_of(self._app) if confirm else None
        self._confirming = None if results is None else Confirming(results, confirm_timeout_s, self._brake.room)
        self._outbox = Outbox(
            Publisher(self._app),
            Gathering(max_rows, max_bytes, linger_s),
            brake=None if on_pressure == "ignore" else self._brake,
            spool=None if spool is None else Spool(spool, spool_max_bytes),
            confirming=self._confirming,
        )

    def write(self, dataset: str, rows: Iterable[Any], *, defaults: Mapping[str, Any] | None = None) -> int:
        """Take rows for a dataset; returns how many. All of them are taken, or an error says why none is.

        With a spool they are in it when this returns, and a broker that is away is no reason to wait or to raise.

        Raises `InvalidMessage` (dataset unknown, rows not a list, defaults wrong), `InvalidRow` (which row, field and
        value), `Backpressure`, `SpoolFull`, `SpoolUnavailable`, and, without a spool, `BrokerUnavailable` while
        messages of earlier calls cannot be sent.
        """
        target = dataset_named(dataset)
        standard, named = self._standard(defaults)
        given = listed(rows)
        if any(f.rule.enqueued_at for f in fields_of(target)):
            given = [with_moment(row) for row in given]
        with self._writing:
            self._admit()
            room = self._outbox.room(target.name, named)
            full = self._outbox.take(target.name, named, list(self._packing.rows(target, given, standard, room)))
            self._send(full)
        return len(given)

    def write_table(self, dataset: str, table: Any, *, defaults: Mapping[str, Any] | None = None) -> int:
        """Take a table's rows, as `write`; for producers that hold frames: columns are checked and sent as columns.

        `table` is a frame of pyarrow, polars, pandas or DuckDB, or whatever else gives an Arrow stream or is a mapping
        of columns; its columns have the names that fields of rows may have. It goes in messages of 5,000 rows at once:
        rows do not wait for others, nor share a message with `write`'s. Needs the extra `arrow`, where workers run as
        well.
        """
        target = dataset_named(dataset)
        standard, named = self._standard(defaults)
        frame = frame_of(table)
        with self._writing:
            self._admit()
            packed = list(self._packing.table(target, frame, standard, named))
            self._send(self._outbox.take(target.name, named, packed, columnar=True))
        return len(frame)

    def _standard(self, defaults: Mapping[str, Any] | None) -> tuple[dict[str, Any], bytes]:
        """What rows leave out, and the same as JSON."""
        standard = {**self._defaults, **(defaults or {})}
        try:
            return standard, msgspec.json.encode(standard, order="deterministic")
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidMessage(f"defaults: expected an object of JSON values: {error}") from error

    async def write_async(self, dataset: str, rows: Iterable[Any], *, defaults: Mapping[str, Any] | None = None) -> int:
        """As `write`, for coroutines: the loop goes on while the client waits."""
        return await asyncio.to_thread(self.write, dataset, rows, defaults=defaults)

    def flush(self) -> None:
        """Send what is waiting; raises `BrokerUnavailable`, and keeps it, when that fails.

        With a spool it raises `Backpressure` when the broker does not take all within `pressure_timeout_s`.
        """
        self._outbox.fill()
        if not self._outbox.until_taken(timeout_s=self._flush_timeout_s):
            raise Backpressure(f"the queue is full: {self._outbox.rows:,} rows are kept in the spool, and sent later")

    def close(self) -> None:
        """Flush, and take no more. Idempotent.

        Without a spool it raises `BrokerUnavailable` when rows could not be sent. With one it waits at most
        `close_timeout_s` until the rows are safe; what is not is left in the spool for the next client, and logged.
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
        except BrokerUnavailable:
            if not self._has_spool:
                raise
        finally:
            self._outbox.stop(timeout_s=max(1.0, deadline - time.monotonic()))
            self._brake.close()

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def pending_rows(self) -> int:
        """Rows that are not yet safe, and therefore kept: in the spool, or in memory where there is none."""
        return self._outbox.rows

    @property
    def spooled(self) -> int:
        """Deprecated: use `pending_rows`."""
        warnings.warn(
            "StoreClient.spooled is deprecated and will be removed in version 0.6; use pending_rows",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.pending_rows

    @property
    def sent(self) -> int:
        """With `confirm=True`: rows that the broker took."""
        return self._tracked.sent

    @property
    def confirmed(self) -> Counts:
        """With `confirm=True`: what became of the rows whose results are in.

        Rows that were sent twice can count as `unchanged` that the first message wrote.
        """
        return self._tracked.counts

    @property
    def rejecting(self) -> dict[str, int]:
        """With `confirm=True`: tasks that left dead letters, and how many rows had been sent before each."""
        return self._tracked.rejecting

    def confirm(self, timeout_s: float = 0.0) -> bool:
        """With `confirm=True`: wait until the results of all messages are in; returns whether they are.

        Rows that still wait for others to fill their message are not meant; `flush` sends them.
        """
        _ = self._tracked
        return self._outbox.until_confirmed(timeout_s)

    @property
    def _tracked(self) -> Confirming:
        if self._confirming is None:
            raise InvalidMessage("the client does not follow results; make it with StoreClient(confirm=True)")
        return self._confirming

    def _admit(self) -> None:
        """Wait until rows may be taken, or say why they may not."""
        if self._closed:
            raise InvalidMessage("the client is closed; make another StoreClient")
        if self._write_waits and not self._brake.wait_to_send(self._pressure_timeout_s, paced=False):
            raise Backpressure(
                f"the queue is full: {self._brake}; wait and call again, or let write() wait with "
                "on_pressure='block' and a longer pressure_timeout_s"
            )
        if self._has_spool:
            return
        if self._outbox.waits:
            self._outbox.until_taken()
        if self._confirming is not None and not self._outbox.until_confirmed(
            self._pressure_timeout_s, bytes_left=_UNCONFIRMED_BYTES
        ):
            raise Backpressure(
                f"{self._confirming.rows:,} rows wait in memory for their results; wait until workers have written "
                "them, or keep rows in a file with StoreClient(spool=PATH)"
            )

    def _send(self, full: range) -> None:
        """Let these messages go, at the pace of the queue; what finds no room in time goes as well, for it is taken."""
        in_time = True
        try:
            for number in full:
                in_time = in_time and (not self._write_waits or self._brake.wait_to_send(self._pressure_timeout_s))
                self._outbox.release(number)
                if not self._has_spool:
                    self._outbox.until_taken(number)
                elif in_time and not self._outbox.is_away:
                    in_time = self._outbox.until_taken(number, _TAKEN_TIMEOUT_S)
        except BrokerUnavailable as error:  # the rows are taken; the outbox goes on trying
            if not self._has_spool:
                logger.warning("%s", error)
        finally:
            self._outbox.release(math.inf)
