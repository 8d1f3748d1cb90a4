"""`mds monitor`: watches both lanes, publishes feedback, and does the upkeep of the database."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import nullcontext

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
from market_data_store.files.archiving import archiver
from market_data_store.metrics.definitions import (
    DATABASE_UP,
    count_delivery,
    init_delivery_counters,
    set_backfill_gauges,
    set_clock_gauges,
    set_letters_gauges,
    set_monitor_gauges,
    set_oldest_gauge,
    set_retention_gauges,
    set_stored_gauges,
)
from market_data_store.metrics.gathered import Gathered
from market_data_store.metrics.server import monitor_metrics
from market_data_store.postgres.room import Room
from market_data_store.protocol import BACKFILL_QUEUE, LANES
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.feed_samples import samples_of, states_of
from market_data_store.status.measuring import measuring
from market_data_store.upkeep import schedule

logger = logging.getLogger(__name__)

_LANES = {queue: lane for lane, queue in LANES.items()}


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
        set_oldest_gauge(_LANES[queue], reading.oldest_s)

    def set_stored(found: DatabaseStatus | None) -> None:
        DATABASE_UP.set(found is not None)
        gathered.feeds = () if found is None else samples_of(found.feeds)
        gathered.feed_states = {} if found is None else states_of(found.feeds)
        if found is not None:
            oldest, run = found.oldest_letter, found.retention
            set_letters_gauges(found.dead_letters, None if oldest is None else oldest.timestamp())
            set_stored_gauges({name: each.rows for name, each in found.stored.items()})
            if run is not None and run.ended_at is not None:
                set_retention_gauges(run.ended_at.timestamp(), len(run.errors))

    clocks = ClockWatch()
    room = Room(configured.database_quota_bytes)
    loop = Monitor.from_settings(
        app, configured, is_database_full=lambda: room.is_full, clocks=clocks, on_reading=set_gauges
    )
    gathered = Gathered(loop.gathering.total)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    at_hangup(lambda *_: stop.set())
    with (
        monitor_metrics(gathered.registry()),
        # Nobody reads the metrics without a port, and a connection would be in vain.
        measuring(configured, set_stored) if configured.monitor_metrics_port else nullcontext(),
        connected(configured, count_delivery) as receivers,
        schedule.running(configured, room, clocks, archiver(configured.archive_dir)),
    ):
        init_delivery_counters(name for name in receivers if name != "log")  # a line of log cannot fail
        logger.info("Publishing feedback to: %s", ", ".join(receivers))
        loop.run(stop)
