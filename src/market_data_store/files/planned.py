"""The plan of a load: how a file is read, what feeds each field, and what a pass over it has shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from market_data_store.files.feeds import Variant
from market_data_store.files.judging import Survey
from market_data_store.files.keys import Clash
from market_data_store.files.layouts import Layout
from market_data_store.files.options import Options
from market_data_store.files.tables import Source
from market_data_store.files.times import Reading
from market_data_store.files.zones import Clock
from market_data_store.wire.moments import ANY_YEAR, TIME_UNIT, bounds_us


@dataclass(slots=True)
class Plan:
    """How the rows of a file are made, and what a pass over it has shown."""

    source: Source
    options: Options
    layout: Layout | None
    variants: list[Variant]
    #: For each variant.
    surveys: list[Survey] = field(default_factory=list)
    #: The zone of times without one.
    zone: str = "UTC"
    #: Whether the zone is only assumed.
    is_assumed: bool = False
    falls: bool = False
    clashes: list[Clash] = field(default_factory=list)
    equal_rows: int = 0
    #: Bytes of keys that were in TMPDIR.
    spilled: int = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    @property
    def rows(self) -> int:
        """Rows that will be sent, those that will be rejected included."""
        return sum(found.rows for found in self.surveys) + (self.surveys[0].broken if self.surveys else 0)

    @property
    def bad_rows(self) -> int:
        """Rows of which it is known that they will be rejected."""
        return sum(found.bad_rows for found in self.surveys) + (self.surveys[0].broken if self.surveys else 0)

    @property
    def superseded(self) -> int:
        """Rows that a later row of the file with the same key replaces."""
        return sum(clash.rows for clash in self.clashes)

    @property
    def times_defaults(self) -> dict[str, str]:
        """What messages say of times: those that the user has described may be of any year."""
        said = self.options.time_format is not None or self.options.time_unit is not None
        return {TIME_UNIT: ANY_YEAR} if said and self._is_far else {}

    @property
    def _is_far(self) -> bool:
        first, last = bounds_us()
        factor = {f.reading.in_nanoseconds for v in self.variants for f in v.feeds if f.name == "ts" and f.reading}
        ticks = 1_000 if True in factor else 1
        bounds = [
            (s.first // ticks, s.last // ticks) for s in self.surveys if s.first is not None and s.last is not None
        ]
        return any(low < first or high > last for low, high in bounds)

    def clock(self, variant: Variant) -> Clock | None:
        """Return a clock for one pass over the file; None if times need none."""
        feed = variant.by_name.get("ts")
        if feed is None or feed.reading is None or feed.reading.is_absolute or self.zone_of(feed.reading) == "UTC":
            return None
        return Clock(self.zone_of(feed.reading), in_nanoseconds=feed.reading.in_nanoseconds, falls=self.falls)

    def zone_of(self, reading: Reading) -> str:
        """Return the zone of a reading's times."""
        if self.options.time_zone is not None:
            return self.options.time_zone
        return reading.zone or (self.zone if reading.has_clock else "UTC")
