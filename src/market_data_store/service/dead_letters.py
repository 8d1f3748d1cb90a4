"""The endpoints of dead letters: list, show, replay and purge. Only `GET .../{id}` returns what was sent."""

from __future__ import annotations

import logging
from base64 import b64encode
from dataclasses import asdict
from datetime import datetime
from typing import Any

import psycopg
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, Field, model_validator

from market_data_store import dead_letters
from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.datasets import DATASETS
from market_data_store.dead_letters.replay import replay
from market_data_store.errors import InvalidMessage
from market_data_store.postgres.connection import connect
from market_data_store.service.guard import Answer, Body, Guard, Problem, problem

logger = logging.getLogger(__name__)

_MAX_ID = 2**63 - 1


def _with_names(schema: dict[str, Any]) -> None:
    schema["enum"] = [*DATASETS]


class Listed(BaseModel):
    """A letter without what was sent."""

    id: int
    created_at: datetime
    refused_at: datetime
    task_id: str
    position: int
    dataset: str | None
    reason: str
    pattern: str | None = Field(description="The reason with … for each value; null for letters of version 0.4.")
    sqlstate: str | None
    enqueued_at: datetime
    body_bytes: int | None = Field(description="Length of the whole body, for a message that is unusable as a whole.")
    body_sha256: str | None = Field(description="SHA-256 of the whole body, in hexadecimal.")
    content_type: str | None
    content_encoding: str | None
    compression: str | None = Field(description="How the body is compressed; null if it is not.")
    job: int | None = Field(description="The id of the load's run in job_runs.")
    file: str | None
    line: int | None


class Shown(Listed):
    """A letter with what was sent."""

    row: str | None = Field(description="JSON text, as sent.")
    defaults: str | None = Field(description="JSON text, as sent.")
    body: str | None = Field(description="Base64; the body of a message that is unusable as a whole.")


class Page(BaseModel):
    """Letters by id; the next page begins `after` the last id."""

    count: int = Field(description="The number of letters of the dataset, or in all: what a purge would delete.")
    letters: list[Listed]


class Where(BaseModel):
    """Which letters to list."""

    dataset: str | None = Field(default=None, json_schema_extra=_with_names)
    after: int = Field(default=0, ge=0, le=_MAX_ID)
    limit: int = Field(default=100, ge=1, le=1_000)


class Which(BaseModel):
    """Which letter to show."""

    id: int = Field(ge=1, le=_MAX_ID)


class Selection(Body):
    """Which letters to replay or purge: by id, of one dataset, or all."""

    ids: list[int] | None = Field(default=None, min_length=1, max_length=10_000)
    dataset: str | None = Field(default=None, json_schema_extra=_with_names)
    all: bool = False

    @model_validator(mode="after")
    def _one_of_three(self) -> Selection:
        if sum((self.ids is not None, self.dataset is not None, self.all)) != 1:
            raise ValueError('give exactly one of "ids": [...], "dataset": "..." and "all": true')
        if self.ids is not None and not all(0 < number <= _MAX_ID for number in self.ids):
            raise ValueError("an id is a number from 1 to 2^63 - 1")
        return self


class Purge(Selection):
    """Which letters to delete, and how many the caller expects them to be."""

    expected: int | None = Field(
        default=None, ge=0, description="Required. If it is not the number of selected letters, none is deleted: 409."
    )


class WrongCount(Problem):
    """Nothing was deleted."""

    count: int = Field(description="The number of selected letters.")


class Replaying(BaseModel):
    """The number of letters that were sent again; each one is deleted when its row is written."""

    sent: int


class Purged(BaseModel):
    """The number of letters that were deleted."""

    purged: int


def create_letters(settings: Settings, guard: Guard) -> APIBlueprint:
    """Make the blueprint of the dead letters' endpoints."""
    letters = guard.blueprint("letters", "dead letters")

    @letters.get("/dead-letters", responses={"200": Page})
    def listed(query: Where) -> Answer:
        """List letters without what was sent."""
        _known(query.dataset)
        with connect(settings.require_database_url()) as connection:
            found = dead_letters.page(connection, dataset=query.dataset, after=query.after, limit=query.limit)
            count = dead_letters.count(connection, dataset=query.dataset)
        listed = [Listed.model_validate(asdict(letter)) for letter in found]
        return Page(count=count, letters=listed).model_dump(mode="json")

    @letters.get("/dead-letters/<int:id>", responses={"200": Shown, "404": Problem})
    def shown(path: Which) -> Answer:
        """Show a letter with what was sent."""
        with connect(settings.require_database_url()) as connection:
            letter = dead_letters.get(connection, path.id)
        if letter is None:
            return problem(f"there is no dead letter {path.id}", 404)
        fields: dict[str, Any] = asdict(letter)
        if letter.body is not None:
            fields["body"] = b64encode(letter.body).decode()
        return Shown.model_validate(fields).model_dump(mode="json")

    @letters.post("/dead-letters/replay", responses={"200": Replaying})
    def replayed(body: Selection) -> Answer:
        """Send letters through `store.write` again."""
        _known(body.dataset)
        with connect(settings.require_database_url()) as connection:
            sent = replay(app, connection, ids=body.ids, dataset=body.dataset)
        logger.info("admin: %d dead letters replayed", sent)
        return Replaying(sent=sent).model_dump()

    @letters.post("/dead-letters/purge", responses={"200": Purged, "409": WrongCount})
    def purged(body: Purge) -> Answer:
        """Delete letters for good, if they are as many as expected."""
        _known(body.dataset)
        if body.expected is None:
            return problem('expected: missing; give the "count" of GET /dead-letters, or how many ids you give', 422)
        with connect(settings.require_database_url()) as connection, connection.transaction() as transaction:
            gone = dead_letters.purge(connection, ids=body.ids, dataset=body.dataset)
            if gone != body.expected:
                raise psycopg.Rollback(transaction)
        if gone != body.expected:
            error = f"expected: {body.expected:,}, but {gone:,} are selected; no letter was deleted"
            return WrongCount(error=error, count=gone).model_dump(), 409
        logger.info("admin: %d dead letters purged", gone)
        return Purged(purged=gone).model_dump()

    return letters


def _known(dataset: str | None) -> None:
    if dataset is not None and dataset not in DATASETS:
        raise InvalidMessage(f"dataset: {dataset[:80]!r} is unknown; use one of {', '.join(DATASETS)}")
