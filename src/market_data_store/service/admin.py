"""The admin endpoints: migrations, retention, the level told now. By bearer token, each with a line in the log.

`guarded` makes a blueprint that lets no one else in; the dead letters' endpoints use it too.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError

from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.coordinator.feedback import BackpressureLevel, FeedbackEvent
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.coordinator.receivers import Publisher, publishers_of
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.coordinator.watermarks import OK, Watermarks
from market_data_store.datasets import DATASETS
from market_data_store.postgres import retention, schema
from market_data_store.postgres.connection import connect
from market_data_store.protocol import QUEUE

logger = logging.getLogger(__name__)

#: What is said by whoever did not choose a token; taken for one in development alone.
_DEFAULT_TOKEN = "changeme"  # noqa: S105  # no secret, which is the point


#: flask.typing's own cannot be resolved at run time, as flask-openapi3 does.
Answer = Response | dict[str, Any] | tuple[dict[str, Any], int]


class Problem(BaseModel):
    """What is wrong, in one line."""

    error: str


class Body(BaseModel):
    """A request's body: no field that is not known."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RevisionChange(BaseModel):
    """Where the schema stood, and where it stands."""

    before: str | None
    after: str | None


class SchemaVersion(BaseModel):
    """Where the schema stands, and where this version of the package wants it."""

    current: str | None
    head: str
    up_to_date: bool


class RetentionRequest(Body):
    """What to apply; nothing given applies MDS_RETENTION_DAYS."""

    dry_run: bool = Field(default=False, description="Count, and delete nothing.")
    dataset: str | None = Field(
        default=None, description="This dataset alone.", json_schema_extra={"enum": [*DATASETS]}
    )


class Expired(BaseModel):
    """Rows of a plain table, or chunks of a hypertable, that went or would go."""

    dataset: str
    older_than: datetime
    rows: int | None
    chunks: int | None


class RetentionAnswer(BaseModel):
    """What went, by dataset."""

    dry_run: bool
    expired: list[Expired]


class LevelAnswer(BaseModel):
    """The event, and by which receiver it was taken."""

    event: dict[str, Any]
    receivers: dict[str, str]


def problem(error: str, status: int) -> Response:
    """An answer that says what is wrong."""
    response = jsonify(error=error)
    response.status_code = status
    return response


def guarded(name: str, settings: Settings, tag: str) -> APIBlueprint:
    """A blueprint whose endpoints need `Authorization: Bearer $ADMIN_TOKEN`."""
    responses: dict[Any, Any] = {401: Problem, 422: Problem, 503: Problem}
    blueprint = APIBlueprint(
        name, __name__, abp_tags=[Tag(name=tag)], abp_security=[{"token": []}], abp_responses=responses
    )

    def refuse() -> Response | None:
        token = settings.admin_token
        if settings.environment == "development":
            token = token or _DEFAULT_TOKEN
        elif token in ("", _DEFAULT_TOKEN):
            state = "not set" if not token else f"{_DEFAULT_TOKEN!r}"
            return problem(f"ADMIN_TOKEN is {state}: the admin endpoints are closed; set it to a secret", 503)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
            return None
        response = problem("the token is missing or wrong; send Authorization: Bearer $ADMIN_TOKEN", 401)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def log(response: Response) -> Response:
        logger.info("admin: %s %s from %s: %d", request.method, request.path, request.remote_addr, response.status_code)
        return response

    blueprint.before_request(refuse)
    blueprint.after_request(log)
    return blueprint


def create_admin(settings: Settings) -> APIBlueprint:
    """The endpoints."""
    admin = guarded("admin", settings, "admin")

    @admin.get("/schema/version", responses={"200": SchemaVersion})
    def schema_version() -> Answer:
        """Say where the schema stands."""
        found = schema.revisions(settings.require_database_url())
        return SchemaVersion(current=found.current, head=found.head, up_to_date=found.up_to_date).model_dump()

    @admin.post("/migrate", responses={"200": RevisionChange})
    def migrate() -> Answer:
        """Run the migrations that are due."""
        before, after = schema.upgrade(settings.migration_url)
        logger.info("admin: migrated from %s to %s", before.current, after.current)
        return RevisionChange(before=before.current, after=after.current).model_dump()

    @admin.post("/retention/apply", responses={"200": RetentionAnswer})
    def apply_retention(body: RetentionRequest) -> Answer:
        """Delete the rows that MDS_RETENTION_DAYS no longer keeps, or count them."""
        days = settings.retention_days
        if body.dataset is not None:
            if body.dataset not in days:
                return problem(f"dataset: {body.dataset[:80]!r} has no days in MDS_RETENTION_DAYS", 422)
            days = {body.dataset: days[body.dataset]}
        with connect(settings.require_database_url()) as connection:
            found = retention.apply(connection, days, dry_run=body.dry_run)
        logger.info("admin: retention%s: %s", " (dry run)" if body.dry_run else "", found)
        expired = [Expired(dataset=e.dataset, older_than=e.older_than, rows=e.rows, chunks=e.chunks) for e in found]
        return RetentionAnswer(dry_run=body.dry_run, expired=expired).model_dump(mode="json")

    @admin.post("/backpressure/check", responses={"200": LevelAnswer})
    def check_backpressure() -> Answer:
        """Look at the queue, and tell the receivers of the level now."""
        with closing(QueueInspector(app, QUEUE)) as inspector:
            depth = inspector.depth()
        with ExitStack() as stack:
            publishers = publishers_of(settings)
            for publisher in publishers.values():
                stack.callback(publisher.close)
            level = Watermarks.of(settings).level(_last_level(publishers), depth / settings.queue_capacity)
            event = FeedbackEvent.create(QUEUE, depth, settings.queue_capacity, level)
            receivers = {name: _delivered(publisher, event) for name, publisher in publishers.items()}
        logger.info("admin: level %s told: %s", level.value, receivers)
        return LevelAnswer(event=event.model_dump(mode="json"), receivers=receivers).model_dump()

    return admin


def _last_level(publishers: Mapping[str, Publisher]) -> BackpressureLevel:
    """From where the level rises or falls."""
    for publisher in publishers.values():
        if isinstance(publisher, RedisFeedbackPublisher):
            with suppress(RedisError):
                last = publisher.last()
                return OK if last is None else last.level
    return OK


def _delivered(publisher: Publisher, event: FeedbackEvent) -> str:
    try:
        publisher.send(event)
    except Exception as error:  # noqa: BLE001  # a receiver raises what its driver raises
        return f"failed ({type(error).__name__})"
    return "delivered"
