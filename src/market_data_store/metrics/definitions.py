"""All Prometheus metrics, and the receivers of the signals that feed them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from market_data_core.telemetry import BackpressureLevel
from prometheus_client import Counter, Gauge, Histogram

from market_data_store.coordinator.queue import Reading, holdable
from market_data_store.datasets import DATASETS
from market_data_store.protocol import Counts
from market_data_store.signals import batch_written, rows_rejected, write_retried

ROWS = Counter("mds_rows_total", "Rows processed, by outcome", ["dataset", "outcome"])
BATCH_ROWS = Histogram(
    "mds_batch_rows", "Rows per batch", ["dataset"], buckets=(1, 10, 50, 100, 500, 1_000, 2_500, 5_000, 10_000)
)
WRITE_SECONDS = Histogram(
    "mds_write_seconds",
    "Seconds from a batch's first attempt to its commit, retries included",
    ["dataset"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
STALE_SECONDS = Histogram(
    "mds_stale_seconds",
    "Seconds by which stale rows were older than the stored rows",
    ["dataset"],
    buckets=(0.1, 1, 2, 5, 10, 30, 60, 300, 900, 3_600, 4 * 3_600, 24 * 3_600, 7 * 24 * 3_600),
)
RETRIES = Counter(
    "mds_write_retries_total",
    "Writes retried after a transient error, by SQLSTATE class",
    ["sqlstate_class"],
)
QUEUE_DEPTH = Gauge("mds_queue_depth", "Messages waiting in the queue", multiprocess_mode="livemostrecent")
QUEUE_RESERVED = Gauge("mds_queue_reserved", "Messages held by workers", multiprocess_mode="livemostrecent")
HELD = Gauge(
    "mds_held_messages",
    "Messages that wait for a dataset whose table takes no row",
    ["dataset"],
    multiprocess_mode="livemostrecent",
)
MALFORMED = Gauge(
    "mds_malformed_entries",
    "Entries of Redis lists that are not messages, set aside by workers",
    multiprocess_mode="livemostrecent",
)
QUEUE_CAPACITY = Gauge("mds_queue_capacity", "Depth at which the queue is full", multiprocess_mode="livemostrecent")
LEVEL = Gauge("mds_backpressure_level", "Level: 0 ok, 1 soft, 2 hard", multiprocess_mode="livemostrecent")
WORKERS = Gauge("mds_workers", "Workers that answer", multiprocess_mode="livemostrecent")
TROUBLED_WORKERS = Gauge(
    "mds_workers_in_trouble",
    "Workers that take no message although some wait (deaf), commit nothing (stalled), or use another transport",
    ["trouble"],
    multiprocess_mode="livemostrecent",
)
BACKFILL_DEPTH = Gauge(
    "mds_backfill_depth", "Messages waiting in the backfill lane", multiprocess_mode="livemostrecent"
)
BACKFILL_RESERVED = Gauge(
    "mds_backfill_reserved", "Messages of the backfill lane held by workers", multiprocess_mode="livemostrecent"
)
BACKFILL_HELD = Gauge(
    "mds_backfill_held_messages",
    "Messages of the backfill lane that wait for a dataset whose table takes no row",
    ["dataset"],
    multiprocess_mode="livemostrecent",
)
BACKFILL_CAPACITY = Gauge(
    "mds_backfill_capacity", "Depth at which the backfill lane is full", multiprocess_mode="livemostrecent"
)
BACKFILL_LEVEL = Gauge(
    "mds_backfill_level", "Level of the backfill lane: 0 ok, 1 soft, 2 hard", multiprocess_mode="livemostrecent"
)
BACKFILL_WORKERS = Gauge(
    "mds_backfill_workers", "Workers that take from the backfill lane", multiprocess_mode="livemostrecent"
)
BROKER_UP = Gauge("mds_broker_up", "1 if the monitor reaches the broker, else 0", multiprocess_mode="livemostrecent")
BROKER_WRITABLE = Gauge(
    "mds_broker_writable",
    "0 if the broker answers and takes no write (it is full or read-only), else 1",
    multiprocess_mode="livemostrecent",
)
LOOKED = Gauge(
    "mds_monitor_looked_timestamp_seconds",
    "Unix time at which the monitor last looked at the queue",
    multiprocess_mode="livemostrecent",
)
UPKEEP_LEADS = Gauge(
    "mds_upkeep_leads", "1 if this monitor has the lease of the upkeep, else 0", multiprocess_mode="livemostrecent"
)
RETENTION_RUN = Gauge(
    "mds_retention_last_run_timestamp_seconds",
    "Unix time at which retention last ended, as the monitor that leads the upkeep knows",
    multiprocess_mode="livemostrecent",
)
RETENTION_FAILED = Gauge(
    "mds_retention_failed_datasets",
    "Datasets of which the last run of retention could not delete or count what is too old",
    multiprocess_mode="livemostrecent",
)
EXPIRED = Counter("mds_retention_deleted_total", "What retention has deleted", ["dataset", "unit"])
LETTERS_STOCK = Gauge("mds_dead_letters", "Dead letters that are kept", multiprocess_mode="livemostrecent")
LETTERS_OLDEST = Gauge(
    "mds_dead_letters_oldest_timestamp_seconds",
    "Unix time at which the oldest dead letter was kept; now without letters",
    multiprocess_mode="livemostrecent",
)
DATABASE_WRITABLE = Gauge(
    "mds_database_writable",
    "0 if Postgres answers and is read-only, else 1",
    multiprocess_mode="livemostrecent",
)
DATABASE_FULL = Gauge(
    "mds_database_full",
    "1 while the database is near its quota, or its disk is nearly full, else 0",
    multiprocess_mode="livemostrecent",
)
CLOCK_OFFSET = Gauge(
    "mds_clock_offset_seconds",
    "Seconds by which a clock is ahead of the monitor's: of Postgres, the broker, or the worker that is off most",
    ["clock"],
    multiprocess_mode="livemostrecent",
)
EVENTS = Counter("mds_feedback_events_total", "Attempts to deliver a feedback event", ["receiver", "outcome"])

_LEVELS = {BackpressureLevel.ok: 0, BackpressureLevel.soft: 1, BackpressureLevel.hard: 2}
#: The label of rows without a dataset and of errors without an SQLSTATE.
_NONE = "none"
_COMMITTED = ("written", "unchanged", "stale", "superseded")
#: The SQLSTATE classes of transient errors (`errors.DatabaseUnavailable`).
_PASSING = ("08", "40", "53", "55", "57", _NONE)


def start_at_zero() -> None:
    """Create a worker's counters at 0: for Prometheus, a counter that first appears with a count has no increase."""
    for dataset in DATASETS:
        for outcome in (*_COMMITTED, "rejected"):
            ROWS.labels(dataset, outcome)
        STALE_SECONDS.labels(dataset)
    ROWS.labels(_NONE, "rejected")
    for sqlstate_class in _PASSING:
        RETRIES.labels(sqlstate_class)


def set_queue_gauges(capacity: int, reading: Reading, level: BackpressureLevel) -> None:
    """Set the gauges of the queue; a gauge whose value is unknown keeps its last value."""
    known = (
        (QUEUE_DEPTH, reading.depth),
        (QUEUE_RESERVED, reading.reserved),
        (WORKERS, reading.workers),
        (MALFORMED, reading.malformed),
    )
    _set_known(known)
    _set_held(HELD, reading)
    for trouble, workers in (reading.troubles or {}).items():
        TROUBLED_WORKERS.labels(trouble).set(workers)
    QUEUE_CAPACITY.set(capacity)
    set_level_gauge(level)


def set_backfill_gauges(capacity: int, reading: Reading, level: BackpressureLevel) -> None:
    """Set the gauges of the backfill lane; a gauge whose value is unknown keeps its last value."""
    _set_known(
        ((BACKFILL_DEPTH, reading.depth), (BACKFILL_RESERVED, reading.reserved), (BACKFILL_WORKERS, reading.workers))
    )
    _set_held(BACKFILL_HELD, reading)
    BACKFILL_CAPACITY.set(capacity)
    set_backfill_level_gauge(level)


def _set_known(gauges: Iterable[tuple[Gauge, int | None]]) -> None:
    for gauge, value in gauges:
        if value is not None:
            gauge.set(value)


def _set_held(gauge: Gauge, reading: Reading) -> None:
    if reading.held is not None:
        for dataset in holdable():
            gauge.labels(dataset).set(reading.held.get(dataset, 0))


def set_level_gauge(level: BackpressureLevel) -> None:
    """Set the gauge of the level."""
    LEVEL.set(_LEVELS[level])


def set_backfill_level_gauge(level: BackpressureLevel) -> None:
    """Set the gauge of the level of the backfill lane."""
    BACKFILL_LEVEL.set(_LEVELS[level])


def set_monitor_gauges(capacity: int, reading: Reading, level: BackpressureLevel) -> None:
    """Set all gauges from a reading of the monitor, which asks for the depth every time."""
    set_queue_gauges(capacity, reading, level)
    BROKER_UP.set(reading.depth is not None)
    BROKER_WRITABLE.set(reading.refusal is None)
    LOOKED.set_to_current_time()


def set_retention_gauges(ended_at: float, failed: int) -> None:
    """Set what the monitor that leads the upkeep knows of the last run: when it ended, and where it failed."""
    RETENTION_RUN.set(ended_at)
    RETENTION_FAILED.set(failed)


def set_room_gauges(*, is_writable: bool, is_full: bool) -> None:
    """Set whether Postgres takes writes, and whether it has no room left for long."""
    DATABASE_WRITABLE.set(is_writable)
    DATABASE_FULL.set(is_full)


def set_clock_gauges(offsets: Mapping[str, float]) -> None:
    """Set by how many seconds each clock is ahead of this machine's; one that is not known keeps its last value."""
    for clock, seconds in offsets.items():
        CLOCK_OFFSET.labels(clock).set(seconds)


def start_retention_at_zero(datasets: Iterable[str]) -> None:
    """Create the counters of these datasets at 0, for the same reason as `start_at_zero`."""
    for dataset in datasets:
        for unit in ("rows", "chunks"):
            EXPIRED.labels(dataset, unit)


def count_expired(dataset: str, unit: str, number: int) -> None:
    """Count `rows` or `chunks` that retention has deleted."""
    EXPIRED.labels(dataset, unit).inc(number)


def set_letters_gauges(stock: int | None, oldest_at: float | None) -> None:
    """Set how many letters there are, and when the oldest was kept; a number that is unknown keeps its last value."""
    if stock is not None:
        LETTERS_STOCK.set(stock)
        LETTERS_OLDEST.set_to_current_time() if oldest_at is None else LETTERS_OLDEST.set(oldest_at)


def init_delivery_counters(receivers: Iterable[str]) -> None:
    """Create the counters of these receivers at 0, for the same reason as `start_at_zero`."""
    for receiver in receivers:
        for outcome in ("delivered", "failed"):
            EVENTS.labels(receiver, outcome)


def count_delivery(receiver: str, delivered: bool) -> None:
    """Count an attempt to deliver a feedback event."""
    EVENTS.labels(receiver, "delivered" if delivered else "failed").inc()


@batch_written.connect(weak=False)
def _on_batch(dataset: str, counts: Counts, seconds: float, late: Sequence[float], **_: Any) -> None:
    for outcome in _COMMITTED:
        ROWS.labels(dataset, outcome).inc(getattr(counts, outcome))
    BATCH_ROWS.labels(dataset).observe(counts.rows)
    WRITE_SECONDS.labels(dataset).observe(seconds)
    for by_seconds in late:
        STALE_SECONDS.labels(dataset).observe(by_seconds)


@rows_rejected.connect(weak=False)
def _on_rejects(dataset: str | None, rows: int, **_: Any) -> None:
    ROWS.labels(dataset or _NONE, "rejected").inc(rows)


@write_retried.connect(weak=False)
def _on_retry(sqlstate_class: str | None, **_: Any) -> None:
    RETRIES.labels(sqlstate_class or _NONE).inc()
