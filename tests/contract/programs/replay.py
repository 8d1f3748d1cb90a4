"""The TickReplayer over what is stored: replay.py COUNT; prints what was read, and the job that tells of the replay."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime

from market_data_pipeline.replay import TickReplayer, TickReplayRequest
from market_data_pipeline.streaming.redis_bus import RedisStreamBus

from market_data_store.store_client import AsyncStoreClient

WINDOW = datetime(2025, 11, 3, 14, tzinfo=UTC), datetime(2025, 11, 3, 15, tzinfo=UTC)


async def main(count):
    bus = RedisStreamBus(os.environ["REDIS_URL"])
    await bus.connect()
    async with AsyncStoreClient(os.environ["DATABASE_URL"]) as store:
        ticks = await store.fetch_ticks_for_replay("ibkr", ["NVDA"], *WINDOW, limit=count)
        print(json.dumps({"fetched": [[tick["ts"].isoformat(), tick["price"]] for tick in ticks]}), flush=True)
        replayer = TickReplayer(os.environ["DATABASE_URL"], bus)
        # Its own pool would refuse its own job's metadata: asyncpg takes no dict for jsonb without a codec.
        replayer._pool = store.pool
        run = await replayer.start_replay(TickReplayRequest("ibkr", ["NVDA"], *WINDOW, speed=0))
        async with asyncio.timeout(30):
            while (await replayer.get_status(run))["rows_written"] < count:
                await asyncio.sleep(0.05)
        print(json.dumps(await replayer.get_status(run), default=str), flush=True)
        # Until it is killed: it emits the last tick for ever, and its `close` can hang in asyncpg.
        await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1])))
