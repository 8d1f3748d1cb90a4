"""What the endpoints of dead letters take and answer."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from market_data_store import dead_letters
from market_data_store.datasets import DATASETS
from market_data_store.dead_letters import stored_id
from market_data_store.errors import InvalidMessage
from market_data_store.service.guard import Body, Problem
from market_data_store.service.texts import MAX_ID, Id, Moment, Text


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
    text: str | None = Field(description="To be edited, as `mds dead-letters edit` shows it; null without a row.")


class Page(BaseModel):
    """Letters by id; the next page begins `after` the last id."""

    count: int = Field(description="The number of letters that are selected: what a purge would delete.")
    letters: list[Listed]


class Filters(BaseModel):
    """What letters have in common."""

    dataset: str | None = Field(default=None, json_schema_extra=_with_names)
    reason: Text | None = Field(default=None, description="A part of the reason or of its pattern.")
    pattern: Text | None = Field(default=None, description="The whole pattern; empty for letters that have none.")
    whole: bool | None = Field(default=None, description="Whether they hold a message that is unusable as a whole.")
    job: Id | None = None
    task: Text | None = Field(default=None, description="The task id of their message.")
    since: Moment | None = Field(default=None, description="Kept at this time or later; without an offset UTC.")
    until: Moment | None = Field(default=None, description="Kept before this time.")

    @property
    def selection(self) -> dict[str, Any]:
        """The arguments of the functions of `dead_letters`; raises `InvalidMessage` for an unknown dataset."""
        if self.dataset is not None and self.dataset not in DATASETS:
            raise InvalidMessage(f"dataset: {self.dataset[:80]!r} is unknown; use one of {', '.join(DATASETS)}")
        given = {name: getattr(self, name) for name in Filters.model_fields if name not in ("dataset", "task")}
        task = None if self.task is None else stored_id(self.task)
        return {"dataset": self.dataset, "where": dead_letters.Where(**given, task=task)}


class Listing(Filters):
    """Which letters to list."""

    after: int = Field(default=0, ge=0, le=MAX_ID)
    limit: int = Field(default=100, ge=1, le=1_000)


class Grouping(Filters):
    """Which letters to count, by what."""

    by: Literal["reason", "job", "dataset", "task", "day"] = "reason"
    limit: int = Field(default=20, ge=1, le=200)


class Group(BaseModel):
    """Letters that share something; what they are not grouped by is null."""

    count: int
    newest: datetime
    dataset: str | None = Field(default=None, description="Null also for messages that are unusable as a whole.")
    pattern: str | None = Field(default=None, description="Null also for letters of version 0.4.")
    job: int | None = None
    file: str | None = None
    task: str | None = None
    day: date | None = None


class Groups(BaseModel):
    """The largest groups, largest first."""

    groups: list[Group]


class Which(BaseModel):
    """Which letter to show."""

    id: int = Field(ge=1, le=MAX_ID)


class Selection(Body, Filters):
    """Which letters to replay or purge: by id, by what they have in common, or all."""

    ids: list[int] | None = Field(default=None, min_length=1, max_length=10_000)
    all: bool = False

    @model_validator(mode="after")
    def _one_of_three(self) -> Selection:
        has_filter = any(getattr(self, name) is not None for name in Filters.model_fields)
        if sum((self.ids is not None, has_filter, self.all)) != 1:
            raise ValueError('give exactly one of "ids": [...], "all": true, and filters such as "dataset": "..."')
        if self.ids is not None and not all(0 < number <= MAX_ID for number in self.ids):
            raise ValueError("an id is a number from 1 to 2^63 - 1")
        return self

    @property
    def selection(self) -> dict[str, Any]:
        """The arguments of the functions of `dead_letters`; raises `InvalidMessage` for an unknown dataset."""
        return {"ids": self.ids, **super().selection}


class Replay(Selection):
    """Which letters to send again, and how they are corrected."""

    set: dict[Text, Text] | None = Field(
        default=None,
        max_length=100,
        description="Values for fields, as texts; an empty one removes the field. Letters without an object stay.",
    )
    limit: int | None = Field(
        default=None, ge=1, le=10_000, description="Send about so many, and answer `portion`, from which to go on."
    )
    after: int = Field(default=0, ge=0, le=MAX_ID, description="Only letters with a greater id.")


class Edited(Body):
    """The letter's `text` with its row corrected."""

    text: str


class Purge(Selection):
    """Which letters to delete, and how many the caller expects them to be."""

    expected: int | None = Field(
        default=None, ge=0, description="Required. If it is not the number of selected letters, none is deleted: 409."
    )


class WrongCount(Problem):
    """Nothing was deleted."""

    count: int = Field(description="The number of selected letters.")


class Portion(BaseModel):
    """What was sent, to ask for the outcome of, and where to go on."""

    ids: list[int]
    since: datetime = Field(description="Before they were sent, by the database's clock.")
    last: int | None = Field(description="Go on `after` this id; null at the end.")


class Replaying(BaseModel):
    """The number of letters that were sent again; each one is deleted when its row is written."""

    sent: int
    uncorrected: int | None = Field(default=None, description="Letters that hold nothing whose fields can be set.")
    portion: Portion | None = None


class Asked(Body):
    """A portion that was sent."""

    ids: list[Id] = Field(max_length=20_000)
    since: Moment


class Outcome(BaseModel):
    """What has become of letters that were sent again."""

    gone: int = Field(description="Their rows are written.")
    waiting: int = Field(description="Not settled yet.")
    refused: int = Field(description="Refused again; they have a new reason.")


class Purged(BaseModel):
    """The number of letters that were deleted."""

    purged: int
