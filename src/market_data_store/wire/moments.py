"""Time as Postgres counts it: microseconds or days since 2000-01-01 UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
EPOCH_DATE = date(2000, 1, 1)
MICROSECOND = timedelta(microseconds=1)
#: From 1970, the epoch of Unix and Arrow, to Postgres's epoch.
UNIX_TO_EPOCH_US = 946_684_800_000_000
UNIX_TO_EPOCH_DAYS = 10_957


def microseconds(moment: datetime) -> int:
    """Return microseconds since 2000-01-01 UTC; a naive moment is UTC."""
    return (aware(moment) - EPOCH) // MICROSECOND


def from_epoch_seconds(seconds: float) -> int:
    """Return microseconds since 2000-01-01 UTC for seconds since 1970."""
    return round((seconds - UNIX_TO_EPOCH_US / 1e6) * 1e6)


def aware(moment: datetime) -> datetime:
    """Return the moment with a time zone; a naive one is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
