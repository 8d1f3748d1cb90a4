"""The admin endpoints: migrations, retention, and the level published now."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any

from flask_openapi3 import APIBlueprint
from pydantic import AwareDatetime, BaseModel, Field

from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.coordinator.feedback import FeedbackEvent
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.receivers import Receiver, backfill_receivers_of, receivers_of
from market_data_store.errors import BrokerUnavailable
from market_data_store.files.archiving import archiver
from market_data_store.postgres import aging, retention, schema
from market_data_store.postgres.connection import connect
from market_data_store.postgres.retention import Expired
from market_data_store.protocol import BACKFILL_QUEUE, LANES, QUEUE
from market_data_store.service.guard import Answer, Body, Guard, Problem, problem
from market_data_store.status.sampler import Sampler

logger = logging.getLogger(__name__)


class RevisionChange(BaseModel):
    """The schema's revision before and after the migrations."""

    before: str | None
    after: str | None


class SchemaVersion(BaseModel):
    """The schema's revision, and the one that this version of the package needs."""

    current: str | None
    head: str
    up_to_date: bool


class ExpiredAnswer(BaseModel):
    """Rows of a plain table, chunks of a hypertable, or partitions, that were deleted or would be."""

    dataset: str
    older_than: AwareDatetime
    rows: int | None
    chunks: int | None
    partitions: int | None = None


def _with_names(schema: dict[str, Any]) -> None:
    schema["enum"] = [*aging.names()]


class RetentionRequest(Body):
    """What to apply; an empty object applies all of MDS_RETENTION_DAYS."""

    dry_run: bool = Field(default=False, description="Only count, delete nothing.")
    dataset: str | None = Field(default=None, description="Only this dataset.", json_schema_extra=_with_names)
    expected: list[ExpiredAnswer] | None = Field(
        default=None,
        description="What the dry run has answered as `expired`; required unless this is one. Deletes that and nothing "
        "else: if there is something else to delete now, nothing is deleted: 409.",
    )


class WrongCounts(Problem):
    """Nothing was deleted; what would be, now."""

    expired: list[ExpiredAnswer]


class RetentionAnswer(BaseModel):
    """What was deleted, or would be, by dataset."""

    dry_run: bool
    expired: list[ExpiredAnswer]


class Published(BaseModel):
    """The event of a lane, and by receiver whether it was delivered."""

    event: dict[str, Any]
    receivers: dict[str, str]


class LevelAnswer(Published):
    """What was published of the live lane, and of the backfill lane."""

    backfill: Published


def create_admin(settings: Settings, sampler: Sampler, guard: Guard) -> APIBlueprint:
    """Make the blueprint of the admin endpoints."""
    admin = guard.blueprint("admin", "admin")

    @admin.get("/schema/version", responses={"200": SchemaVersion})
    def schema_version() -> Answer:
        """Report the schema's revision."""
        found = schema.revisions(settings.require_database_url())
        return SchemaVersion(current=found.current, head=found.head, up_to_date=found.up_to_date).model_dump()

    @admin.post("/migrate", responses={"200": RevisionChange})
    def migrate() -> Answer:
        """Run the migrations that are due."""
        before, after = schema.upgrade(settings.migration_url, lambda step: logger.info("admin: %s", step))
        logger.info("admin: migrated from %s to %s", before.current, after.current)
        return RevisionChange(before=before.current, after=after.current).model_dump()

    @admin.post("/retention/apply", responses={"200": RetentionAnswer, "409": WrongCounts})
    def apply_retention(body: RetentionRequest) -> Answer:
        """Delete the rows that are older than MDS_RETENTION_DAYS, as a dry run has counted them, or count them."""
        days = settings.retention_days
        if body.dataset is not None:
            if body.dataset not in days:
                return problem(f"dataset: {body.dataset[:80]!r} is not in MDS_RETENTION_DAYS", 422)
            days = {body.dataset: days[body.dataset]}
        if body.expected is None and not body.dry_run:
            return problem('expected: missing; give the list "expired" that {"dry_run": true} answers', 422)
        limits = {each.dataset: each.older_than for each in body.expected or ()}
        archive = archiver(settings.archive_dir)
        with connect(settings.require_database_url()) as connection:
            found = _expired(retention.apply(connection, days, limits=limits, dry_run=True, archive=archive))
            if not body.dry_run:
                if found != body.expected:
                    error = "expected: something else is to be deleted now; nothing was deleted"
                    return WrongCounts(error=error, expired=found).model_dump(mode="json"), 409
                found = _expired(retention.apply(connection, days, limits=limits, archive=archive))
        logger.info("admin: retention%s: %s", " (dry run)" if body.dry_run else "", found)
        return RetentionAnswer(dry_run=body.dry_run, expired=found).model_dump(mode="json")

    @admin.post("/backpressure/check", responses={"200": LevelAnswer})
    def check_backpressure() -> Answer:
        """Read both lanes' queues, and publish the level of each to all of its receivers now."""
        depths = _depths()
        live = published(QUEUE, depths.get(QUEUE), receivers_of(settings))
        backfill = published(BACKFILL_QUEUE, depths.get(BACKFILL_QUEUE), backfill_receivers_of(settings))
        return LevelAnswer(**dict(live), backfill=backfill).model_dump()

    def published(queue: str, depth: int | None, publishers: Mapping[str, Receiver]) -> Published:
        level = sampler.level_at(depth, queue)
        event = FeedbackEvent.create(queue, depth or 0, settings.capacities[queue], *level)
        with ExitStack() as stack:
            for publisher in publishers.values():
                stack.callback(publisher.close)
            receivers = {name: _delivered(publisher, event) for name, publisher in publishers.items()}
        logger.info("admin: level %s of %s published: %s", level, queue, receivers)
        return Published(event=event.model_dump(mode="json"), receivers=receivers)

    return admin


def _expired(found: Iterable[Expired]) -> list[ExpiredAnswer]:
    return [ExpiredAnswer.model_validate(asdict(each)) for each in found]


def _depths() -> dict[str, int]:
    """Read the depths now, as the sampler's may be two seconds old; none when the broker does not answer."""
    with closing(QueueInspector(app, QUEUE)) as inspector:
        try:
            return {queue: inspector.depth(queue) for queue in LANES.values()}
        except BrokerUnavailable:
            return {}


def _delivered(publisher: Receiver, event: FeedbackEvent) -> str:
    try:
        publisher.send(event)
    except Exception as error:  # noqa: BLE001  # a receiver raises what its driver raises
        return f"failed ({type(error).__name__})"
    return "delivered"
