"""The status as JSON: the document of `/status.json`, which the page shows and `mds status --json` prints."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from market_data_store.config import Settings
from market_data_store.coordinator.watermarks import LevelAndReason, Watermarks
from market_data_store.postgres.upkeep_runs import Run
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.headline import problem_of
from market_data_store.status.looks import Away, FeedbackStatus, Looks, QueueStatus
from market_data_store.status.sampler import Sample


def document_of(sample: Sample, settings: Settings) -> dict[str, Any]:
    """Make the document; null means unknown."""
    database = None if isinstance(sample.looks.database, Away) else sample.looks.database
    feedback = sample.looks.feedback if isinstance(sample.looks.feedback, FeedbackStatus) else None
    rows_per_s = None if database is None else database.rows_per_s
    return {
        "ts": sample.ts,
        "version": version("market-data-store"),
        "headline": str(sample.headline),
        "severity": sample.headline.severity,
        "age_s": None if sample.age_s is None else round(sample.age_s, 3),
        "queue": _queue(sample.looks, sample.level, settings, QUEUE),
        "backfill": {
            **_queue(sample.looks.of_backfill, sample.backfill, settings, BACKFILL_QUEUE),
            "problem": problem_of(sample.backfill),
        },
        "workers": None if isinstance(sample.looks.workers, Away) else len(sample.looks.workers),
        "workers_in_trouble": list(sample.looks.trouble.workers),
        "held": [each._asdict() for each in sample.looks.trouble.held],
        "stalled_s": round(sample.looks.trouble.stalled_s, 1),
        "rows_per_s": None if rows_per_s is None else round(rows_per_s, 1),
        "health": sample.health.model_dump(mode="json"),
        "history": [[round(point.ts, 3), point.depth, point.level] for point in sample.history],
        "events": None if feedback is None else _events(feedback),
        "stored": None if database is None else _stored(database),
        "retention": None if database is None or database.retention is None else _retention(database.retention),
        "dead_letters": _letters(database),
    }


def _queue(looks: Looks, level: LevelAndReason, settings: Settings, queue: str) -> dict[str, Any]:
    found = looks.queue if isinstance(looks.queue, QueueStatus) else None
    watermarks = Watermarks.of(settings)
    capacity = settings.capacities[queue]
    return {
        "depth": None if found is None else found.depth,
        "reserved": None if found is None else found.reserved,
        "refusal": looks.queue.refusal,
        "malformed": None if found is None else found.malformed,
        "capacity": capacity,
        "utilization": None if found is None else found.depth / capacity,
        "level": level.level.value,
        "reason": level.reason,
        "workers": None if isinstance(looks.workers, Away) else len(looks.workers),
        "watermarks": {
            "soft_above": watermarks.soft_above,
            "hard_from": watermarks.hard_from,
            "hard_until": watermarks.hard_until,
            "ok_at": watermarks.ok_at,
        },
    }


def _events(feedback: FeedbackStatus) -> list[dict[str, Any]]:
    return [
        {
            "ts": event.ts,
            "level": event.level.value,
            "reason": event.reason,
            "queue_size": event.queue_size,
            "capacity": event.capacity,
        }
        for event in feedback.events
    ]


def _stored(database: DatabaseStatus) -> dict[str, Any]:
    return {
        name: {"series": found.series, "newest": None if found.newest is None else found.newest.isoformat()}
        for name, found in database.stored.items()
    }


def _retention(run: Run) -> dict[str, Any]:
    return {
        "ended_ts": None if run.ended_at is None else run.ended_at.timestamp(),
        "automatic": run.automatic,
        "said": run.said,
        "found": [
            {"dataset": each.dataset, "rows": each.rows, "chunks": each.chunks, "partitions": each.partitions}
            for each in run.found
        ],
        "errors": dict(run.errors),
    }


def _letters(database: DatabaseStatus | None) -> dict[str, Any]:
    oldest = None if database is None else database.oldest_letter
    return {
        "total": None if database is None else database.dead_letters,
        "oldest_ts": None if oldest is None else oldest.timestamp(),
        "reasons": _reasons(database),
    }


def _reasons(database: DatabaseStatus | None) -> list[dict[str, Any]] | None:
    if database is None or database.reasons is None:
        return None
    return [
        {"dataset": each.dataset, "reason": each.reason, "count": each.count, "last_ts": each.last_ts}
        for each in database.reasons
    ]
