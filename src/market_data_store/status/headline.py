"""The one line that sums up the store's status: the worst cause first, as a code and in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from market_data_core.telemetry import HealthComponent, HealthStatus

from market_data_store.causes import Cause
from market_data_store.coordinator.feedback import BROKER_UNREACHABLE, DATABASE_FULL, DATASET_HELD, NO_WORKERS
from market_data_store.coordinator.watermarks import HARD, OK, SOFT, LevelAndReason
from market_data_store.coordinator.workers import unserved
from market_data_store.protocol import BACKFILL_QUEUE
from market_data_store.status.freshness import ALL, Feed
from market_data_store.status.looks import Away, Looks

Severity = Literal["ok", "warning", "critical"]

_OF_LEVEL = {
    OK: "producers send at full rate",
    SOFT: "the queue is filling; producers slow down",
    HARD: "the queue is full; producers wait",
}
_OF_REASON = {
    BROKER_UNREACHABLE: (Cause.BROKER_DOWN, "the broker does not answer; producers wait"),
    DATABASE_FULL: (Cause.DATABASE_FULL, "the database is nearly full; producers wait"),
    DATASET_HELD: (Cause.DATASET_HELD, "the messages of held datasets fill their capacity; producers wait"),
    NO_WORKERS: (Cause.NO_WORKERS, "messages wait and no worker takes them"),
}
_WAITS = "; messages wait in the queue, nothing is lost"


class Found(NamedTuple):
    """One thing that is wrong: its cause, how bad it is, and what to say of it."""

    cause: Cause
    severity: Severity
    text: str


class Headline(NamedTuple):
    """The store's status for people; its text is `state: cause`."""

    severity: Severity
    #: The level and its reason (`soft`, `hard (no_workers)`), or `not ready` or `degraded` if health is worse.
    state: str
    cause: str
    #: The worst cause; None while all is well.
    code: Cause | None = None

    def __str__(self) -> str:
        """Return the whole line."""
        return f"{self.state}: {self.cause}"


def headline(level: LevelAndReason, found: Sequence[Found]) -> Headline:
    """Sum up what is wrong (`causes_of`), worst first; warnings are left out while something is critical."""
    if not found:
        return Headline("ok", str(level), _OF_LEVEL[level.level])
    worst = found[0]
    if worst.severity == "critical":
        state = str(level) if level.level is HARD else "not ready"
        said = [each.text for each in found if each.severity == "critical"]
    else:
        state = "soft" if level.level is SOFT else "degraded"
        said = [each.text for each in found]
    return Headline(worst.severity, state, "; ".join(said), worst.cause)


def problem_of(backfill: LevelAndReason) -> str | None:
    """Return what to do about the backfill lane, if nobody takes what waits there; it makes no headline."""
    if backfill.reason != NO_WORKERS:
        return None
    return unserved(BACKFILL_QUEUE)


def causes_of(level: LevelAndReason, looks: Looks, health: HealthStatus) -> list[Found]:
    """Return all that is wrong, worst first; `health` is made of the same looks.

    Critical is what stops rows: the level hard, a database, schema or broker that is missing or takes no write, or a
    held dataset. A full queue and workers that commit nothing come last among these, as they mostly follow from others.
    """
    components = {component.name: component for component in health.components}
    critical = [*_of_level(level, looks), *_of_database(looks), *_of_broker(level, looks), *_held(looks)]
    if not critical or critical[0].cause is Cause.DATASET_HELD:
        critical += [Found(Cause.WORKERS_STALLED, "critical", looks.trouble.stalled)] if looks.trouble.stalled else []
    if level.level is HARD and level.reason is None:
        critical.append(Found(Cause.QUEUE_FULL, "critical", _OF_LEVEL[HARD]))
    seen = {each.cause for each in critical}
    warnings = [
        Found(cause, "warning", text) for cause, text in _warnings(level, looks, components) if cause not in seen
    ]
    return critical + warnings


def _of_level(level: LevelAndReason, looks: Looks) -> Iterator[Found]:
    """What the level says by its reason, but what a broker says itself."""
    if level.reason in _OF_REASON and not (level.reason == BROKER_UNREACHABLE and looks.queue.refusal):
        cause, text = _OF_REASON[level.reason]
        yield Found(cause, "critical", text)


def _of_database(looks: Looks) -> Iterator[Found]:
    waits = "" if isinstance(looks.queue, Away) else _WAITS
    if isinstance(looks.database, Away):
        yield Found(Cause.DATABASE_DOWN, "critical", f"Postgres does not answer{waits}")
        return
    if looks.database.is_read_only:
        yield Found(Cause.DATABASE_READ_ONLY, "critical", f"Postgres is read-only{waits}")
    revisions = looks.database.revisions
    if not (revisions.up_to_date or revisions.is_newer):
        yield Found(Cause.MIGRATION_DUE, "critical", "a migration is due; run `mds migrate`")


def _of_broker(level: LevelAndReason, looks: Looks) -> Iterator[Found]:
    if not looks.queue.refusal:
        return
    waits = "; producers wait" if level.level is HARD else ""
    if isinstance(looks.queue, Away):
        yield Found(Cause.BROKER_TAKES_NO_WRITE, "critical", f"{looks.queue.error}{waits}")
    else:
        yield Found(Cause.BROKER_TAKES_NO_WRITE, "critical", f"the broker takes no write: {looks.queue.refusal}{waits}")


def _held(looks: Looks) -> Iterator[Found]:
    for text in looks.trouble.held_sentences:
        yield Found(Cause.DATASET_HELD, "critical", text)


def _warnings(
    level: LevelAndReason, looks: Looks, components: dict[str, HealthComponent]
) -> Iterator[tuple[Cause, str]]:
    database = None if isinstance(looks.database, Away) else looks.database
    if not isinstance(looks.queue, Away):  # else nothing is known of the workers
        if not isinstance(looks.workers, Away) and not looks.workers:
            yield Cause.NO_WORKERS, _said(components["workers"])
        elif components["workers"].state != "healthy":
            yield Cause.WORKERS_IN_TROUBLE, _said(components["workers"])
    yield from ((Cause.CLOCK_WRONG, text) for text in looks.clocks)
    if database is not None:
        if database.revisions.is_newer:
            yield Cause.SCHEMA_NEWER, _said(components["migrations"])
        if database.new_letters:
            yield Cause.LETTERS_GROW, database.new_letters
        if database.feeds.stopped:
            yield Cause.FEED_STOPPED, _stopped(database.feeds.stopped)
    if level.level is SOFT:
        yield Cause.QUEUE_FILLS, _OF_LEVEL[SOFT]
    feedback = components["feedback"]
    if feedback.state != "healthy":
        is_stopped = not isinstance(looks.feedback, Away) and "failed" not in feedback.details.values()
        yield Cause.NO_MONITOR if is_stopped else Cause.FEEDBACK_NOT_DELIVERED, _said(feedback)


def _stopped(feeds: Sequence[Feed]) -> str:
    first, more = feeds[0], len(feeds) - 1
    dataset, provider, group = first.name
    of = f"{provider} ({group})" if group != ALL else provider
    others = f", and {more} more feed{'s' if more > 1 else ''}" if more else ""
    limit = f"its limit is {first.limit_s:,.0f} s"
    return f"{dataset} of {of} has stopped: its newest row is {first.age_s:,.0f} s old, {limit}{others}"


def _said(component: HealthComponent) -> str:
    return str(component.details.get("error", f"{component.name} is {component.state}"))
