"""The bounds of a window of time, as users write them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

from market_data_store.errors import InvalidRead
from market_data_store.wire.moments import aware

#: A text is ISO 8601. A date is its midnight; without a zone it is UTC.
Bound = str | date | datetime


def moment_of(bound: Bound | None, name: str) -> datetime | None:
    """Return a bound as a time with a zone, None for none; raises `InvalidRead`, which begins with its name."""
    try:
        found: Any = datetime.fromisoformat(bound.strip()) if isinstance(bound, str) else bound
    except ValueError:
        found = bound
    if found is None:
        return None
    if isinstance(found, datetime):
        return aware(found)
    if isinstance(found, date):
        return datetime.combine(found, time(), UTC)
    raise InvalidRead(f"{name}: {bound!r} is not a time; write 2024-01-02 or 2024-01-02T14:30:00Z")
