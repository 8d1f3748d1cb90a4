"""A Core `Sink` over `StoreClient`, for pipelines of coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from market_data_store.producer.client import StoreClient


class StoreSink:
    """Write items of one dataset to the store: `await sink.write(bars)`.

    A thin async face over a `StoreClient`, which it makes with `client_options` and closes. It slows the pipeline down
    as the client does: `write` returns when the rows are taken.
    """

    def __init__(self, dataset: str, *, defaults: Mapping[str, Any] | None = None, **client_options: Any) -> None:
        self._dataset = dataset
        self._client = StoreClient(defaults=defaults, **client_options)

    async def write(self, items: list[Any]) -> None:
        """Take the items; raises what `StoreClient.write` raises."""
        await self._client.write_async(self._dataset, items)

    async def flush(self) -> None:
        """Send all items that are waiting; raises `BrokerUnavailable`."""
        await asyncio.to_thread(self._client.flush)

    async def close(self) -> None:
        """Flush, and take no more items."""
        await asyncio.to_thread(self._client.close)
