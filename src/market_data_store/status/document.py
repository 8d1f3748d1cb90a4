"""The status as JSON: the document of `/status.json`, which the page shows and `mds status --json` prints."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from market_data_store.causes import help_of
from market_data_store.config import Settings
from market_data_store.coordinator.answers import FoundWorker
from market_data_store.coordinator.counted import OUTCOMES
from market_data_store.coordinator.watermarks import LevelAndReason, Watermarks
from market_data_store.postgres.unknown_fields import UnknownField
from market_data_store.postgres.upkeep_runs import Run
from market_data_store.protocol import BACKFILL_QUEUE, LANES, QUEUE
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.flow import Flowing
from market_data_store.status.freshness import Feed
from market_data_store.status.headline import problem_of
from market_data_store.status.history import Point
from market_data_store.status.looks import Away, FeedbackStatus, Looks, QueueStatus
from market_data_store.status.sampler import Sample

#: The most workers that are listed, those in trouble first.
_MOST_WORKERS = 200


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
        "headline_cause": None if sample.headline.code is None else sample.headline.code.value,
        "since_ts": None if sample.since is None else round(sample.since, 3),
        "help": None if sample.headline.code is None else help_of(sample.headline.code),
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
        "history": _history(sample.history),
        "backfill_history": _history(sample.backfill_history),
        "events": None if feedback is None else _events(feedback),
        "stored": None if database is None else _stored(database),
        "jobs": None if database is None or database.jobs is None else [job._asdict() for job in database.jobs],
        "retention": None if database is None or database.retention is None else _retention(database.retention),
        "unknown": None if database is None or database.unknown is None else [*map(_unknown, database.unknown)],
        "dead_letters": _letters(database),
        "links": _links(settings),
        "open_series": settings.open_series,
        "flow": _flow(sample.flow),
        "worker_list": _workers(sample.looks, sample.flow, sample.ts),
        "feeds": None if database is None else [_feed(feed) for feed in database.feeds.shown],
        "feeds_total": None if database is None else len(database.feeds.every),
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


def _links(settings: Settings) -> dict[str, str | None]:
    """Return where the page leads to, relative to it, or Flower's address without user and password."""
    flower = urlsplit(settings.flower_url)
    bare = urlunsplit(flower._replace(netloc=flower.netloc.rpartition("@")[2])) if settings.flower_url else None
    return {"flower": bare, "metrics": "metrics", "docs": "docs/"}


def _history(points: Iterable[Point]) -> list[list[Any]]:
    return [[round(point.ts, 3), point.depth, point.level] for point in points]


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
        name: {
            "series": found.series,
            "newest": None if found.newest is None else found.newest.isoformat(),
            "rows": found.rows,
        }
        for name, found in database.stored.items()
    }


def _flow(flow: Flowing) -> dict[str, Any]:
    newest = flow.newest
    rates = (None,) * len(OUTCOMES) if newest.rows_per_s is None else map(_rounded, newest.rows_per_s)
    return {
        "rows_per_s": dict(zip(OUTCOMES, rates, strict=True)),
        "latency_ms": {"p50": _rounded(newest.p50_ms), "p99": _rounded(newest.p99_ms)},
        "history": [
            [
                round(point.ts, 3),
                *(map(_rounded, point.rows_per_s) if point.rows_per_s else (None,) * len(OUTCOMES)),
                _rounded(point.p50_ms),
                _rounded(point.p99_ms),
            ]
            for point in flow.history
        ],
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)


def _workers(looks: Looks, flow: Flowing, now: float) -> list[dict[str, Any]] | None:
    if isinstance(looks.workers, Away):
        return None
    found = sorted(looks.found, key=lambda worker: (worker.trouble is None, worker.name))
    return [_worker(worker, flow, now) for worker in found[:_MOST_WORKERS]]


def _worker(worker: FoundWorker, flow: Flowing, now: float) -> dict[str, Any]:
    lanes = [lane for lane, queue in LANES.items() if queue in worker.queues]
    answer = worker.answer
    if answer is None:  # of version 0.4
        unknown = ("version", "since_ts", "processes", "holds", "rows_per_s", "rss_bytes", "trouble")
        return {"name": worker.name, "lanes": lanes, **dict.fromkeys(unknown)}
    return {
        "name": worker.name,
        "version": answer.version,
        "since_ts": None if answer.up_s is None else round(now - answer.up_s, 1),
        "lanes": lanes,
        "processes": answer.processes,
        "holds": answer.holds,
        "rows_per_s": _rounded(flow.rows_per_s.get(answer.instance or "")),
        "rss_bytes": answer.rss_bytes,
        "trouble": worker.trouble,
    }


def _feed(feed: Feed) -> dict[str, Any]:
    return {
        "dataset": feed.name.dataset,
        "provider": feed.name.provider,
        "group": feed.name.group,
        "newest_ts": round(feed.newest_ts, 3),
        "age_s": round(feed.age_s, 1),
        "limit_s": feed.limit_s,
        "stopped": feed.is_stopped,
        "spark": None if feed.spark is None else list(feed.spark),
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


def _unknown(field: UnknownField) -> dict[str, Any]:
    return {
        "dataset": field.dataset,
        "name": field.name,
        "kinds": field.kinds,
        "count": field.rows,
        "last_ts": field.last_at.timestamp(),
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
