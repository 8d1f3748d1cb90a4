"""The causes of trouble by name, and the section of docs/troubleshooting.md that says what to do about each.

The headline, the log lines and the alerts name a cause by the same code. What a cause says in words is made where it is
found, and for the status in `status.headline`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

_DOCUMENT = "docs/troubleshooting.md"


class Cause(StrEnum):
    """What can be wrong, as a code."""

    BROKER_DOWN = "broker_down"
    BROKER_TAKES_NO_WRITE = "broker_takes_no_write"
    CLOCK_WRONG = "clock_wrong"
    DATABASE_DOWN = "database_down"
    DATABASE_FULL = "database_full"
    DATABASE_READ_ONLY = "database_read_only"
    DATASET_HELD = "dataset_held"
    FEED_STOPPED = "feed_stopped"
    FEEDBACK_NOT_DELIVERED = "feedback_not_delivered"
    LETTERS_GROW = "letters_grow"
    MIGRATION_DUE = "migration_due"
    NO_MONITOR = "no_monitor"
    NO_WORKERS = "no_workers"
    QUEUE_FILLS = "queue_fills"
    QUEUE_FULL = "queue_full"
    ROWS_STALE = "rows_stale"
    SCHEMA_NEWER = "schema_newer"
    WORKERS_IN_TROUBLE = "workers_in_trouble"
    WORKERS_STALLED = "workers_stalled"


#: The anchor of each cause's section.
SECTIONS: Mapping[Cause, str] = {
    Cause.BROKER_DOWN: "the-broker-does-not-answer",
    Cause.BROKER_TAKES_NO_WRITE: "the-broker-takes-no-write",
    Cause.CLOCK_WRONG: "a-clock-is-wrong",
    Cause.DATABASE_DOWN: "postgres-does-not-answer",
    Cause.DATABASE_FULL: "postgres-is-full",
    Cause.DATABASE_READ_ONLY: "postgres-is-read-only",
    Cause.DATASET_HELD: "a-dataset-is-held",
    Cause.FEED_STOPPED: "a-feed-has-stopped",
    Cause.FEEDBACK_NOT_DELIVERED: "feedback-is-not-delivered",
    Cause.LETTERS_GROW: "dead-letters-grow",
    Cause.MIGRATION_DUE: "a-migration-is-due",
    Cause.NO_MONITOR: "no-monitor-runs",
    Cause.NO_WORKERS: "no-worker-takes-messages",
    Cause.QUEUE_FILLS: "the-level-is-soft",
    Cause.QUEUE_FULL: "the-level-is-hard",
    Cause.ROWS_STALE: "rows-are-stale",
    Cause.SCHEMA_NEWER: "the-schema-is-newer",
    Cause.WORKERS_IN_TROUBLE: "workers-are-in-trouble",
    Cause.WORKERS_STALLED: "workers-commit-nothing",
}


def help_of(cause: Cause) -> str:
    """Return the address of the cause's section, relative to the root of the repository."""
    return f"{_DOCUMENT}#{SECTIONS[cause]}"


def fields_of(cause: Cause) -> dict[str, object]:
    """Return what a log line about this cause carries: `cause` and `help`."""
    return {"cause": cause.value, "help": help_of(cause)}
