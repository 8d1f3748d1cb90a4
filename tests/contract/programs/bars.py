"""The synthetic source into a sink, for some seconds: prints the bars that the sink took.

bars.py store | database | processor SECONDS
"""

import asyncio
import json
import sys

from market_data_pipeline.pipeline_builder import create_pipeline
from market_data_pipeline.sink.store import StoreSink

from market_data_store.store_client import AsyncStoreClient

SYMBOLS = ["AAPL", "MSFT", "NVDA", "AMZN"]


def built(kind):
    overrides = {"database_processor": AsyncStoreClient()} if kind == "database" else {}
    sink = "database" if kind == "database" else "store"
    pipeline = create_pipeline(
        "tests", "synthetic", source="synthetic", symbols=SYMBOLS, sink=sink, overrides=overrides
    )
    if kind == "processor":
        pipeline.sink = StoreSink(batch_processor=AsyncStoreClient(defaults={"interval": "1s"}))
    return pipeline


def told(bar):
    numbers = {name: float(getattr(bar, name)) for name in ("open", "high", "low", "close", "volume", "vwap")}
    return {
        "symbol": bar.symbol,
        "ts": bar.timestamp.isoformat(),
        "source": bar.source,
        "trade_count": bar.trade_count,
        **numbers,
    }


async def main(kind, seconds):
    pipeline = built(kind)
    take = pipeline.sink.write

    async def write(batch):
        await take(batch)
        for bar in batch:
            print(json.dumps(told(bar)), flush=True)

    pipeline.sink.write = write
    await pipeline.run(duration_sec=float(seconds))
    dropped = pipeline.batcher.get_metrics()["items_dropped"]
    assert dropped == 0, f"the pipeline's batcher dropped {dropped} bars"


asyncio.run(main(*sys.argv[1:]))
