"""The whole loop: the synthetic source, paced by the RateCoordinator that our feedback drives, into the default sink.

Prints the bars that the sink took, each RateAdjustment's scale, and four times a second how many ticks there were.
"""

import asyncio
import json
import sys

from market_data_core.protocols import RateController
from market_data_pipeline.errors import PacingError
from market_data_pipeline.orchestration.coordinator import RateCoordinator
from market_data_pipeline.orchestration.feedback import RateCoordinatorAdapter
from market_data_pipeline.pipeline_builder import create_pipeline
from market_data_pipeline.pulse.consumer import FeedbackConsumer
from market_data_pipeline.settings.feedback import PipelineFeedbackSettings


def tell(**what):
    print(json.dumps(what), flush=True)


class Told(RateController):
    def __init__(self, coordinator):
        self.adapter = RateCoordinatorAdapter(coordinator)

    async def apply(self, adjustment):
        await self.adapter.apply(adjustment)
        tell(scale=adjustment.scale)


class Coordinated:
    """A source that asks the coordinator before each tick, as the coordinator's documentation has it."""

    def __init__(self, source, coordinator):
        self.source = source
        self.coordinator = coordinator
        self.ticks = 0

    async def stream(self):
        async for tick in self.source.stream():
            await self.admitted()
            self.ticks += 1
            yield tick

    async def admitted(self):
        while True:
            try:
                return await self.coordinator.acquire("ibkr")
            except PacingError:  # its rate was lowered while it waited
                continue

    async def close(self):
        await self.source.close()


async def watch(source):
    while True:
        tell(ticks=source.ticks)
        await asyncio.sleep(0.25)


async def main():
    coordinator = RateCoordinator()
    coordinator.register_provider("ibkr", capacity=1, refill_rate=80)
    pipeline = create_pipeline("tests", "loop", source="synthetic", symbols=["AAPL", "MSFT"], sink="store")
    pipeline.source = source = Coordinated(pipeline.source, coordinator)
    take = pipeline.sink.write

    async def write(batch):
        await take(batch)
        for bar in batch:
            tell(bar=[bar.symbol, bar.timestamp.isoformat()])

    pipeline.sink.write = write
    consumer = FeedbackConsumer(Told(coordinator), PipelineFeedbackSettings())
    tasks = [asyncio.create_task(task) for task in (pipeline.run(), consumer.run("loop"), watch(source))]
    await asyncio.to_thread(sys.stdin.read)
    await pipeline.source.close()  # ends the stream, and so the run: the tail is flushed
    await tasks[0]
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


asyncio.run(main())
