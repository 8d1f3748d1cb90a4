"""The spans of time by which a table is partitioned: where each begins and ends, and how far from now one is made.

All are of the calendar in UTC. `registry.span_of` says which a dataset has.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum


class Span(Enum):
    """How long a partition is."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"

    def start_of(self, moment: datetime) -> datetime:
        """Return the start of the span with this time; a week begins on Monday."""
        day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        match self:
            case Span.DAY:
                return day
            case Span.WEEK:
                return day - timedelta(days=day.weekday())
            case Span.MONTH:
                return day.replace(day=1)
            case Span.YEAR:
                return day.replace(month=1, day=1)

    def after(self, start: datetime) -> datetime:
        """Return the start of the next span."""
        # So many days are in the next span, and never in the one after it.
        days = {Span.DAY: 1, Span.WEEK: 7, Span.MONTH: 31, Span.YEAR: 366}[self]
        return self.start_of(start + timedelta(days=days))

    def label(self, start: datetime) -> str:
        """Return such as `2016_03`, for the names of tables and files; a week has the name of its Monday."""
        form = {Span.MONTH: "%Y_%m", Span.YEAR: "%Y"}.get(self, "%Y_%m_%d")
        return start.astimezone(UTC).strftime(form)

    @property
    def made_ahead(self) -> int:
        """How many spans after the present one have partitions before a row needs them."""
        return {Span.DAY: 7, Span.WEEK: 4, Span.MONTH: 3, Span.YEAR: 1}[self]

    @property
    def years_back(self) -> int:
        """How many years before now a partition is made for a row: there are some 4,000 of them at most."""
        return {Span.DAY: 10, Span.WEEK: 50, Span.MONTH: 100, Span.YEAR: 200}[self]

    def earliest(self, now: datetime) -> datetime:
        """Return the time before which no partition is made."""
        return now.astimezone(UTC) - timedelta(days=round(365.25 * self.years_back))

    def latest(self, now: datetime) -> datetime:
        """Return the time from which on no partition is made."""
        return now.astimezone(UTC) + timedelta(days=DAYS_AHEAD)


#: How many days after now a partition is made for a row; a time after that is mostly a mistake.
DAYS_AHEAD = 366
SPANS = tuple(each.value for each in Span)
