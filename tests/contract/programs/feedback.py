"""The real FeedbackConsumer and RateCoordinator: prints each RateAdjustment, and what the coordinator makes of it."""

import asyncio
import json
import sys

from market_data_core.protocols import RateController
from market_data_pipeline.orchestration.coordinator import RateCoordinator
from market_data_pipeline.orchestration.feedback import RateCoordinatorAdapter
from market_data_pipeline.pulse.consumer import FeedbackConsumer
from market_data_pipeline.settings.feedback import PipelineFeedbackSettings


class Told(RateController):
    def __init__(self, coordinator):
        self.coordinator = coordinator
        self.adapter = RateCoordinatorAdapter(coordinator)

    async def apply(self, adjustment):
        await self.adapter.apply(adjustment)
        status = self.coordinator.get_provider_state("ibkr")
        told = {"scale": adjustment.scale, "level": adjustment.reason.value}
        print(json.dumps({**told, "coordinator": [status["scale_factor"], status["pressure_state"]]}), flush=True)


async def main():
    coordinator = RateCoordinator()
    coordinator.register_provider("ibkr", capacity=10, refill_rate=100)
    consumer = FeedbackConsumer(Told(coordinator), PipelineFeedbackSettings())
    running = asyncio.create_task(consumer.run("tests"))
    await asyncio.to_thread(sys.stdin.read)
    while not running.done():  # a cancellation that comes while a reply does may be lost
        running.cancel()
        await asyncio.wait([running], timeout=1)


asyncio.run(main())
