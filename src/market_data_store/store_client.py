"""`AsyncStoreClient`, the adapter for market-data-pipeline; the client itself is `market_data_store.StoreClient`.

It writes through a `StoreClient` and reads from Postgres. The pipeline drops a batch whose write raises. Therefore the
adapter spools where `StoreClient` would wait or raise: while the broker is away or its queue is full, rows are in a
file on this machine. A bad row among good ones goes to the worker, which makes it a dead letter. See docs/pipeline.md.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import math
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from market_data_store import reads
from market_data_store.config import settings
from market_data_store.connections.urls import postgres_url, without_password
from market_data_store.datasets import dataset_named
from market_data_store.errors import BrokerUnavailable, SpoolInUse, SpoolUnavailable
from market_data_store.postgres.connection import connect
from market_data_store.producer.lanes import Lane, queue_of
from market_data_store.producer.spool import free_path
from market_data_store.protocol import QUEUE
from market_data_store.wire.fields import required_names

if TYPE_CHECKING:
    from market_data_store.producer.client import StoreClient

logger = logging.getLogger(__name__)


class AsyncStoreClient:
    """`async with AsyncStoreClient() as store: await store.upsert_bars(rows)`.

    `db_uri` is the database for reads (default DATABASE_URL); writes go through BROKER_URL. `spool` is the directory of
    the spools (default `MDS_HOME/spool`), with one file per client; later clients of the same lane send what dead ones
    left there. `lane`, `defaults` and `client_options` are passed to `StoreClient`. A client that was not opened opens
    at its first write.

    It also serves as the pipeline's batch processor: `StoreSink(batch_processor=AsyncStoreClient(...))`,
    `overrides={"database_processor": AsyncStoreClient(...)}`.
    """

    def __init__(
        self,
        db_uri: str | None = None,
        *,
        lane: Lane = "live",
        defaults: Mapping[str, Any] | None = None,
        spool: str | Path | None = None,
        **client_options: Any,
    ) -> None:
        """Raise `ConfigurationError` if no Postgres or no broker is configured; `db_uri` may have any spelling."""
        queue = queue_of(lane)
        self._url = postgres_url(db_uri) if db_uri else settings().require_database_url()
        broker = without_password(settings().require_broker_url())
        # A directory for each broker, so that rows for one broker never reach another, and in it one for history, which
        # would delay live rows.
        self._spools = Path(spool or settings().home / "spool") / sha256(broker.encode()).hexdigest()[:12]
        if queue != QUEUE:
            self._spools /= lane
        self._options = {"lane": lane, "defaults": defaults, "check": False, **client_options}
        self._store: StoreClient | None = None
        self._opening = asyncio.Lock()
        #: An asyncpg pool whose connections read and write JSON as objects; `aopen` sets it if asyncpg is installed.
        #: market-data-pipeline 0.8's TickReplayer needs it, see docs/pipeline.md.
        self.pool: Any = None

    async def aopen(self) -> None:
        """Prepare to write; idempotent. Works even while broker and Postgres are away."""
        async with self._opening:
            if self._store is None:
                self._store = await asyncio.to_thread(self._opened)
                # The pipeline's StoreSink never closes its batch processor.
                atexit.register(self._leave)
                self.pool = await _replay_pool(self._url)

    async def aclose(self) -> None:
        """Send what can be sent within ten seconds, leave the rest in the spool, and take no more rows; idempotent."""
        async with self._opening:
            if self.pool is not None:
                await self.pool.close()
                self.pool = None
            if self._store is not None:
                await asyncio.to_thread(self._store.close)
                atexit.unregister(self._leave)
                self._store = None

    async def upsert_bars(self, bars: Iterable[Any]) -> int:
        """Write bars, with any of the field names in `datasets`; return how many. Raises what `StoreClient` raises."""
        return await self._write("bars", bars)

    write_bars = upsert_bars

    async def upsert_ticks(self, ticks: Iterable[Any]) -> int:
        """Write ticks (provider, symbol, price, ts, size, bid, ask), as `upsert_bars` does. Naive times are UTC."""
        return await self._write("ticks", ticks)

    async def insert_signals(self, signals: Iterable[Any]) -> int:
        """Write signals (provider, symbol, ts, name, value, score, metadata), as `upsert_bars` does."""
        return await self._write("signals", signals)

    write_signals = insert_signals

    async def fetch_ticks_for_replay(
        self, provider: str, symbols: Iterable[str], start_ts: datetime, end_ts: datetime, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """Return the first `limit` ticks from `start_ts` (inclusive) to `end_ts` (exclusive), oldest first.

        Each has provider, symbol, price, ts, size, bid and ask. Raises `DatabaseUnavailable`.
        """
        return await asyncio.to_thread(self._ticks, provider, list(symbols), start_ts, end_ts, limit)

    async def __aenter__(self) -> Self:
        """Open the client, and return it."""
        await self.aopen()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.aclose()

    async def _write(self, dataset: str, rows: Iterable[Any]) -> int:
        if self._store is None:
            await self.aopen()
        assert self._store is not None  # noqa: S101  # `aopen` sets it
        required = required_names(dataset_named(dataset))
        return await self._store.write_async(dataset, [_sendable(row, required) for row in rows])

    def _leave(self) -> None:
        """Close at the interpreter's exit; says in one line if rows are lost, which happens without a spool only."""
        try:
            if self._store is not None:
                self._store.close()
        except BrokerUnavailable as error:
            logger.error("%s", error)
            if not logging.getLogger().handlers:  # nobody shows the log
                sys.stderr.write(f"market-data-store: {error}\n")

    def _opened(self) -> StoreClient:
        # Imported here, because importing market_data_core imports the pipeline, if installed, and so this module. At
        # the top, this import would run before the settings are known, or find this module half imported.
        from market_data_store.producer.client import StoreClient

        while True:
            try:
                return StoreClient(spool=free_path(self._spools), on_pressure="spool", **self._options)
            except SpoolInUse:  # another client took it first
                continue
            except SpoolUnavailable as error:
                logger.warning("%s; rows are kept in memory while the broker is away", error)
                return StoreClient(pressure_timeout_s=math.inf, **self._options)

    def _ticks(self, *window: Any) -> list[dict[str, Any]]:
        with connect(self._url) as connection:
            return reads.ticks(connection, *window)


def _sendable(row: Any, required: frozenset[str]) -> Any:
    """Convert what JSON cannot express: the pipeline's events, and NaN where the worker must see and reject it."""
    if not isinstance(row, Mapping) and hasattr(row, "to_dict"):
        row = row.to_dict()
    if not isinstance(row, Mapping):
        return row
    wrong = {k: str(v) for k, v in row.items() if isinstance(v, float) and not math.isfinite(v) and k in required}
    return {**row, **wrong} if wrong else row


async def _replay_pool(url: str) -> Any:
    try:
        import asyncpg  # the pipeline requires it, this package does not
    except ImportError:
        return None

    async def with_json(connection: Any) -> None:
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)

    return await asyncpg.create_pool(url, min_size=0, max_size=4, init=with_json)
