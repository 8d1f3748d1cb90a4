"""The whole examination: which families of checks there are, and which of their checks can stop a release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery import Celery

from market_data_store.config import Settings
from market_data_store.postgres.server import ServerFacts
from market_data_store.status.doctor import configured, connections
from market_data_store.status.doctor.admin import admin, same
from market_data_store.status.doctor.broker import broker, feedback
from market_data_store.status.doctor.family import Family, examined
from market_data_store.status.doctor.finding import Finding, skipped
from market_data_store.status.doctor.machine import machine, packages, python
from market_data_store.status.doctor.postgres import database
from market_data_store.status.doctor.processes import processes
from market_data_store.status.doctor.redis_server import RedisFacts
from market_data_store.status.sampler import Sample

#: What must be right before the processes of a version begin. Migrations are not here: the release runs them.
OF_RELEASE = frozenset(
    f"{family}.{check}"
    for family, checks in {
        "database": ("reachable", "version", "writable", "encoding", "rights"),
        "admin": ("reachable", "session", "rights"),
        "broker": ("reachable", "version", "queues", "eviction"),
        "redis": ("reachable",),
    }.items()
    for check in checks
)


@dataclass
class Seen:
    """What one family has seen and others need."""

    postgres: ServerFacts | None = None
    admin: ServerFacts | None = None
    broker: RedisFacts | None = None
    feedback: RedisFacts | None = None
    sample: Sample | None = None
    settings: Settings | None = None


def examine(app: Celery, seen: Seen) -> Iterator[Finding]:
    """Yield the findings of all checks, as they become known; `seen` keeps what was seen."""
    settings, found = configured.read()
    yield from found
    yield from machine(settings)
    if settings is None:
        yield skipped("servers", "the settings are wrong; mend them first")
        return
    seen.settings = settings
    yield from configured.missing(settings)
    yield from configured.secrets(settings)
    yield from configured.stalled(settings)
    families = _families(app, settings, seen, is_release=False)
    if settings.broker_url:
        families.append(processes(settings, lambda sample: setattr(seen, "sample", sample)))
    yield from examined(families)
    if settings.admin_database_url and settings.database_url:
        yield from same(seen.admin, seen.postgres)
    fleet = connections.Fleet.of(seen.sample.looks.answers if seen.sample else ())
    yield from connections.at_postgres(seen.postgres, fleet)
    if seen.broker is not None:
        yield from connections.at_redis("broker.connections", seen.broker, fleet)
    if seen.feedback is not None:
        yield from connections.at_redis("redis.connections", seen.feedback, fleet)


def examine_for_release(app: Celery, seen: Seen) -> Iterator[Finding]:
    """Yield the findings of what can stop a release, which may know fewer servers than the other processes."""
    settings, found = configured.read()
    yield from found
    yield from python()
    yield from packages()
    if settings is None:
        yield skipped("servers", "the settings are wrong; mend them first")
        return
    seen.settings = settings
    yield from examined([family.only(OF_RELEASE) for family in _families(app, settings, seen, is_release=True)])
    if settings.admin_database_url and settings.database_url:
        yield from same(seen.admin, seen.postgres)


def _families(app: Celery, settings: Settings, seen: Seen, *, is_release: bool) -> list[Family[Any]]:
    def see_broker(facts: object) -> None:
        seen.broker = facts if isinstance(facts, RedisFacts) else None

    families: list[Family[Any]] = []
    if settings.database_url:
        families.append(database(settings, lambda facts: setattr(seen, "postgres", facts)))
    if settings.database_url or settings.admin_database_url:
        families.append(admin(settings, lambda facts: setattr(seen, "admin", facts), is_release=is_release))
    if settings.broker_url:
        families.append(broker(app, settings, see_broker))
    if settings.redis_url and settings.redis_url != settings.broker_url:
        families.append(feedback(settings, lambda facts: setattr(seen, "feedback", facts)))
    return families
