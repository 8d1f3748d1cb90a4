"""The rows that contenders write: a month of real one-minute bars, repeated over symbols.

It uses only the standard library, because the peers' programs also use it, in their own environments.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).parents[1] / "src/market_data_store/data/6EH4-1min-bars-2024-01.csv.gz"

#: fresh: no row is stored yet. replayed: all rows are stored, except the last one of each message. half: every other
#: row is stored. updated: all rows are stored, with another volume.
KINDS = ("fresh", "replayed", "half", "updated")

#: Where a live feed continues: after all rows that `growth` has put into the table.
_LIVE = datetime(2030, 1, 1, tzinfo=UTC)


class Bar(NamedTuple):
    """A row of bars_ohlcv, in the order of its columns."""

    provider: str
    symbol: str
    interval: str
    ts: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float

    def to_json(self) -> dict[str, Any]:
        """Return the row as an object for a message: all nine fields, the time as text."""
        return {**self._asdict(), "ts": self.ts.isoformat()}


@dataclass(frozen=True, slots=True)
class Workload:
    """A number of rows, in messages of equal size. `first` numbers the symbols, so that each run can have its own keys.

    With `live_symbols` the rows are like a live feed's: the same minute of each symbol, then the next minute. Without,
    they are like a backfill's: a month of one symbol after the other.
    """

    kind: str
    rows: int
    per_message: int
    first: int = 0
    live_symbols: int = 0

    def sent(self) -> Iterator[Bar]:
        """Yield the rows in the order in which they are sent."""
        return map(self._bar, range(self.rows))

    def messages(self) -> Iterator[list[Bar]]:
        """Yield the same rows message by message."""
        message: list[Bar] = []
        for number, bar in enumerate(self.sent()):
            message.append(bar)
            if self._ends_message(number):
                yield message
                message = []

    def stored_before(self) -> Iterator[Bar]:
        """Yield the rows that the table holds when the clock starts."""
        for number, bar in enumerate(self.sent()):
            if self._is_stored(number):
                yield bar._replace(volume=bar.volume + 1) if self.kind == "updated" else bar

    def markers(self) -> list[Bar]:
        """Return each message's last row; with every kind, the table has it only after the message is committed."""
        return [self._bar(number) for number in range(self.rows) if self._ends_message(number)]

    def _bar(self, number: int) -> Bar:
        bars = _bars()
        bar = bars[number % len(bars)]
        if self.live_symbols:
            minute, symbol = divmod(number, self.live_symbols)
            ts = _LIVE + timedelta(minutes=self.first * 1_000_000 + minute)
            return bar._replace(symbol=symbol_name(symbol), ts=ts)
        return bar._replace(symbol=symbol_name(self.first + number // len(bars)))

    def _is_stored(self, number: int) -> bool:
        if self.kind == "half":
            return number % 2 == 0
        return self.kind == "updated" or (self.kind == "replayed" and not self._ends_message(number))

    def _ends_message(self, number: int) -> bool:
        return (number + 1) % self.per_message == 0 or number + 1 == self.rows


def symbol_name(number: int) -> str:
    """Return a symbol's name; all have the same length, so that they sort as their numbers do."""
    return f"6E{number:06d}"


@cache
def _bars() -> list[Bar]:
    with gzip.open(FILE, "rt", newline="") as lines:
        return [
            Bar(
                "CME",
                "",
                "1m",
                datetime.fromisoformat(line["timestamp_utc"]).replace(tzinfo=UTC),
                *(float(line[name]) for name in ("open", "high", "low", "close", "volume")),
            )
            for line in csv.DictReader(lines)
        ]
