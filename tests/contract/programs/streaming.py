"""Ticks by way of the pipeline's stream bus to TickConsumer and SignalConsumer: streaming.py COUNT."""

import asyncio
import os
import sys

from market_data_pipeline.streaming.consumers.signal_consumer import SignalConsumer
from market_data_pipeline.streaming.consumers.tick_consumer import TickConsumer
from market_data_pipeline.streaming.redis_bus import RedisStreamBus

from market_data_store.store_client import AsyncStoreClient


async def main(count):
    bus = RedisStreamBus(os.environ["REDIS_URL"])
    await bus.connect()
    store = AsyncStoreClient(os.environ["DATABASE_URL"])
    await store.aopen()
    consumers = [TickConsumer(bus, store), SignalConsumer(bus, store, flush_interval_seconds=1)]
    for consumer in consumers:
        await consumer.start()
    for number in range(int(count)):
        # Two ticks share each instant: both are to be kept.
        price, at = 100 + number / 8, f"2025-11-03T14:{number // 120:02}:{number // 2 % 60:02}Z"
        tick = {"kind": "tick", "provider": "ibkr", "symbol": "NVDA", "price": price, "timestamp": at, "size": 10}
        await bus.publish("mdp.events", {**tick, "bid": price - 0.125, "ask": price + 0.125})
    await asyncio.to_thread(sys.stdin.read)
    for consumer in consumers:
        await consumer.stop()
    await store.aclose()
    await bus.disconnect()


asyncio.run(main(*sys.argv[1:]))
