"""Turns a clock's times into UTC, as they come: in the hour that a clock change repeats, the order of rows decides.

In a series whose times rise, the first pass through that hour is summer time, and begins again where a time is not
later than the one before. Where times fall, it is the other way round.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.files.options import Undecided

_EPOCH = datetime(1970, 1, 1)  # a clock's time
_MICROSECOND = timedelta(microseconds=1)


def zone_named(name: str) -> ZoneInfo:
    """Return a zone; raises `Undecided` for a name that is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Undecided(
            f"--time-zone {name}: no zone has this name; give one such as America/New_York, Etc/GMT+5 or UTC"
        ) from error


class Clock:
    """Reads a clock's times in the order of the file; one object for one pass over a file."""

    def __init__(self, zone: str, *, in_nanoseconds: bool, falls: bool = False) -> None:
        self._name, self._zone, self._falls = zone, zone_named(zone), falls
        self._unit = "ns" if in_nanoseconds else "us"
        self._factor = 1_000 if in_nanoseconds else 1
        #: By series: the last time, and whether the repeated hour has begun again.
        self._last: dict[Hashable, tuple[int, bool]] = {}

    def utc(self, ticks: pa.Array, series: pa.Array | None) -> pa.Array:
        """Return ticks since 1970 in UTC; null for a time that the clock never showed."""
        try:
            local = ticks.cast(pa.timestamp(self._unit))
            zoned = pc.assume_timezone(local, self._name)
            self._note(ticks, series)
            return zoned.cast(pa.int64())
        except pa.ArrowInvalid:
            keys: Sequence[Hashable] = series.to_pylist() if series is not None else [None] * len(ticks)
            found = [None if t is None else self._one(t, key) for t, key in zip(ticks.to_pylist(), keys, strict=True)]
            return pa.array(found, pa.int64())

    def _note(self, ticks: pa.Array, series: pa.Array | None) -> None:
        if len(ticks) and series is None and ticks[-1].is_valid:
            self._last[None] = (ticks[-1].as_py(), False)

    def _one(self, ticks: int, key: Hashable) -> int | None:
        local = _EPOCH + timedelta(microseconds=ticks // self._factor)
        first, second = (local.replace(tzinfo=self._zone, fold=fold) for fold in (0, 1))
        before, is_again = self._last.get(key, (None, False))
        if first.utcoffset() == second.utcoffset():
            self._last[key] = (ticks, False)
            return self._ticks(first, ticks)
        if local != first.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None):
            return None
        turned = before is not None and (ticks >= before if self._falls else ticks <= before)
        is_again = is_again or turned
        self._last[key] = (ticks, is_again)
        return self._ticks(second if is_again != self._falls else first, ticks)

    def _ticks(self, moment: datetime, ticks: int) -> int:
        since = moment.astimezone(UTC).replace(tzinfo=None) - _EPOCH
        return since // _MICROSECOND * self._factor + ticks % self._factor
