"""The orchestrator's PulseObserver, and its FeedbackSubscriber on our FeedbackBus; prints what they counted."""

import asyncio
import json
import sys

from market_data_core.telemetry import BackpressureLevel
from market_data_orchestrator.events import EventRegistry
from market_data_orchestrator.feedback import FeedbackSubscriber
from market_data_orchestrator.pulse.config import PulseConfig
from market_data_orchestrator.pulse.observer import PulseObserver

from market_data_store import FeedbackBus
from market_data_store.coordinator import FeedbackEvent


class Told:
    event_type = "backpressure"

    async def handle(self, event):
        print(json.dumps({"level": event["level"].value, "reason": event["reason"]}), flush=True)


async def tell(metrics):
    while True:
        seen, errors = (count("telemetry.feedback") for count in (metrics.get_consume_count, metrics.get_error_count))
        print(json.dumps({"seen": seen, "errors": errors}), flush=True)
        await asyncio.sleep(0.1)


async def main():
    observer = PulseObserver(PulseConfig())
    await observer.start("tests")
    counting = asyncio.create_task(tell(observer.metrics))
    await asyncio.to_thread(sys.stdin.read)
    counting.cancel()
    await observer.stop()

    bus = FeedbackBus()
    registry = EventRegistry()
    registry.register(Told())
    await FeedbackSubscriber(bus, registry).subscribe()
    subscribers = bus.subscriber_count
    await bus.publish(FeedbackEvent.create("store", 90, 100, BackpressureLevel.hard, reason="no_workers"))
    print(json.dumps({"subscribers": subscribers}), flush=True)


asyncio.run(main())
