"""Time as Arrow and Postgres count it: microseconds or days since 1970 or 2000, UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

#: Postgres's epoch: the moments of messages and dead letters count from it.
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
#: The epoch of Unix and Arrow: the times in rows count from it.
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNIX_EPOCH_DATE = date(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
UNIX_TO_EPOCH_US = 946_684_800_000_000
UNIX_TO_EPOCH_DAYS = 10_957
#: The years 1 to 9999, in microseconds and days since 1970.
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
FIRST_DAY, LAST_DAY = -719_162, 2_932_896


def microseconds(moment: datetime) -> int:
    """Return microseconds since 2000-01-01 UTC; a naive moment is UTC."""
    return (aware(moment) - EPOCH) // MICROSECOND


def from_epoch_seconds(seconds: float) -> int:
    """Return microseconds since 2000-01-01 UTC for seconds since 1970."""
    return round((seconds - UNIX_TO_EPOCH_US / 1e6) * 1e6)


def aware(moment: datetime) -> datetime:
    """Return the moment with a time zone; a naive one is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
