"""`mds monitor`: watches both lanes, publishes feedback, and does the upkeep of the database."""

from __future__ import annotations

import logging
import signal
import threading

import click
from market_data_core.telemetry import BackpressureLevel

from market_data_store.app import app
from market_data_store.cli.terminal import at_hangup
from market_data_store.config import settings
from market_data_store.coordinator.clock_watch import ClockWatch
from market_data_store.coordinator.cluster import refuse_cluster
from market_data_store.coordinator.monitor import Monitor
from market_data_store.coordinator.queue import Reading
from market_data_store.coordinator.receivers import connected
from market_data_store.metrics.definitions import (
    count_delivery,
    init_delivery_counters,
    set_backfill_gauges,
    set_clock_gauges,
    set_monitor_gauges,
)
from market_data_store.metrics.server import monitor_metrics
from market_data_store.postgres.room import Room
from market_data_store.protocol import BACKFILL_QUEUE
from market_data_store.upkeep import schedule

logger = logging.getLogger(__name__)


@click.command("monitor")
def command() -> None:
    """Watch the queues of both lanes and tell producers when to slow down, until SIGTERM or Ctrl-C.

    Several monitors may run. With Redis, one of them leads, and another takes over when it ends. Without Redis, each
    of them publishes.
    """
    configured = settings()
    configured.require_broker_url()
    refuse_cluster(app)

    def set_gauges(queue: str, reading: Reading, level: BackpressureLevel) -> None:
        set_all = set_backfill_gauges if queue == BACKFILL_QUEUE else set_monitor_gauges
        set_all(configured.capacities[queue], reading, level)
        set_clock_gauges(clocks.offsets)

    clocks = ClockWatch()
    room = Room(configured.database_quota_bytes)
    loop = Monitor.from_settings(
        app, configured, is_database_full=lambda: room.is_full, clocks=clocks, on_reading=set_gauges
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    at_hangup(lambda *_: stop.set())
    upkeep = schedule.running(configured, room, clocks)
    with monitor_metrics(), connected(configured, count_delivery) as receivers, upkeep:
        init_delivery_counters(name for name in receivers if name != "log")  # a line of log cannot fail
        logger.info("Publishing feedback to: %s", ", ".join(receivers))
        loop.run(stop)
