"""The endpoints of dead letters: list, count, show, correct, replay, export and purge.

Only `GET .../{id}` and the export return what was sent.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from flask import Response
from flask_openapi3 import APIBlueprint

from market_data_store import dead_letters
from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.dead_letters.correcting import edited, exported, text_of, with_values
from market_data_store.dead_letters.replay import Change, portion
from market_data_store.dead_letters.summary import grouped, summary
from market_data_store.postgres.connection import connect
from market_data_store.service.guard import Answer, Guard, Problem, problem
from market_data_store.service.letter_bodies import (
    Asked,
    Edited,
    Filters,
    Group,
    Grouping,
    Groups,
    Listed,
    Listing,
    Outcome,
    Page,
    Portion,
    Purge,
    Purged,
    Replay,
    Replaying,
    Shown,
    Which,
    WrongCount,
)

logger = logging.getLogger(__name__)

_NDJSON = "application/x-ndjson"


def create_letters(settings: Settings, guard: Guard) -> APIBlueprint:
    """Make the blueprint of the dead letters' endpoints."""
    letters = guard.blueprint("letters", "dead letters")

    def connection() -> psycopg.Connection[Any]:
        return connect(settings.require_database_url())

    @letters.get("/dead-letters", responses={"200": Page})
    def listed(query: Listing) -> Answer:
        """List letters without what was sent."""
        with connection() as opened:
            found = dead_letters.page(opened, **query.selection, after=query.after, limit=query.limit)
            count = dead_letters.count(opened, **query.selection)
        listed = [Listed.model_validate(asdict(letter)) for letter in found]
        return Page(count=count, letters=listed).model_dump(mode="json")

    @letters.get("/dead-letters/groups", responses={"200": Groups})
    def counted(query: Grouping) -> Answer:
        """Count letters by reason, job and file, dataset, task or day."""
        with connection() as opened:
            groups = [*_groups(opened, query)]
        return Groups(groups=groups).model_dump(mode="json")

    @letters.get("/dead-letters/export", responses={"200": {"content": {_NDJSON: {"schema": {"type": "string"}}}}})
    def written(query: Filters) -> Answer:
        """Write letters that hold a row as NDJSON, to be corrected and given to `mds load --letters`."""
        response = Response(_lines(connection(), query.selection), mimetype=_NDJSON)
        response.headers["Content-Disposition"] = 'attachment; filename="letters.ndjson"'
        return response

    @letters.get("/dead-letters/<int:id>", responses={"200": Shown, "404": Problem})
    def shown(path: Which) -> Answer:
        """Show a letter with what was sent."""
        with connection() as opened:
            letter = dead_letters.get(opened, path.id)
        if letter is None:
            return _no_letter(path.id)
        fields: dict[str, Any] = asdict(letter)
        if letter.body is not None:
            fields["body"] = b64encode(letter.body).decode()
        return Shown.model_validate(fields | {"text": text_of(letter)}).model_dump(mode="json")

    @letters.post("/dead-letters/<int:id>/edit", responses={"200": Replaying, "404": Problem})
    def corrected(path: Which, body: Edited) -> Answer:
        """Send a letter again with its row corrected; if that is refused, the letter keeps its row."""
        with connection() as opened:
            letter = dead_letters.get(opened, path.id)
            if letter is None:
                return _no_letter(path.id)
            if letter.row is None:
                return problem(f"letter {path.id}: it holds no row, but a whole message or only a reason", 422)
            changed = edited(letter, body.text)
            return _sent(opened, {"ids": [path.id]}, 1, lambda _: changed)

    @letters.post("/dead-letters/replay", responses={"200": Replaying})
    def replayed(body: Replay) -> Answer:
        """Send letters through `store.write` again, as they are or with values set."""
        values = body.set
        change: Change | None = None if not values else lambda letter: with_values(letter, values)
        selection = body.selection
        if body.after:
            selection["where"] = replace(selection["where"], above=body.after)
        with connection() as opened:
            return _sent(opened, selection, body.limit, change)

    @letters.post("/dead-letters/outcome", responses={"200": Outcome})
    def outcome(body: Asked) -> Answer:
        """Report what has become of a portion that was sent."""
        with connection() as opened:
            waiting, refused = dead_letters.outcome(opened, body.ids, body.since)
        gone = len({*body.ids}) - waiting - refused
        return Outcome(gone=gone, waiting=waiting, refused=refused).model_dump()

    @letters.post("/dead-letters/purge", responses={"200": Purged, "409": WrongCount})
    def purged(body: Purge) -> Answer:
        """Delete letters for good, if they are as many as expected."""
        selection = body.selection
        if body.expected is None:
            return problem('expected: missing; give the "count" of GET /dead-letters, or how many ids you give', 422)
        with connection() as opened, opened.transaction() as transaction:
            gone = dead_letters.purge(opened, **selection)
            if gone != body.expected:
                raise psycopg.Rollback(transaction)
        if gone != body.expected:
            error = f"expected: {body.expected:,}, but {gone:,} are selected; no letter was deleted"
            return WrongCount(error=error, count=gone).model_dump(), 409
        logger.info("admin: %d dead letters purged", gone)
        return Purged(purged=gone).model_dump()

    return letters


def _no_letter(id_: int) -> Response:
    return problem(f"there is no dead letter {id_}", 404)


def _groups(connection: psycopg.Connection[Any], query: Grouping) -> Iterator[Group]:
    if query.by == "reason":
        for each in summary(connection, **query.selection, limit=query.limit):
            yield Group(
                count=each.count,
                newest=datetime.fromtimestamp(each.last_ts, UTC),
                dataset=each.dataset,
                pattern=each.pattern,
            )
        return
    names = ("job", "file") if query.by == "job" else (query.by,)
    for count, newest, *shared in grouped(connection, query.by, **query.selection, limit=query.limit):
        yield Group(count=count, newest=newest, **dict(zip(names, shared, strict=True)))


def _lines(opened: psycopg.Connection[Any], selection: dict[str, Any]) -> Iterator[bytes]:
    with opened as connection:
        for letter in dead_letters.stream(connection, **selection):
            line = exported(letter)
            if line is not None:
                yield line + b"\n"


def _sent(
    connection: psycopg.Connection[Any], selection: dict[str, Any], limit: int | None, change: Change | None
) -> dict[str, Any]:
    since = dead_letters.now(connection)
    sent = portion(app, connection, **selection, limit=limit, change=change)
    logger.info("admin: %d dead letters replayed", len(sent.ids))
    answer = Replaying(
        sent=len(sent.ids),
        uncorrected=None if change is None else sent.uncorrected,
        portion=None
        if limit is None
        else Portion(ids=[*sent.ids], since=since, last=None if sent.is_last else sent.ids[-1]),
    )
    # What the request has not asked for is left out.
    return {name: value for name, value in answer.model_dump(mode="json").items() if value is not None}
