"""Poll a source of trades, and write what it answers.

Two things make a poller safe to kill and to restart:

- `spool` keeps rows in a file until the store has committed them, so a crash or an outage loses none;
- writing is idempotent, so the poller may ask for the last seconds again, as sources without exact cursors require.

`Source` stands for the HTTP API of an exchange. Replace it with your own.
"""

# ruff: noqa: T201  # a script prints

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from market_data_store import StoreClient

#: Each answer begins with the last seconds of the answer before.
OVERLAP = timedelta(seconds=3)


class Source:
    """Answers with one trade a second of each symbol; the same question always has the same answer."""

    symbols = ("BTC-USD", "ETH-USD")

    def trades(self, start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
        """The trades from `start` up to, but not including, `end`."""
        seconds = int((end - start).total_seconds())
        for moment in (start + timedelta(seconds=n) for n in range(seconds)):
            for symbol in self.symbols:
                chance = random.Random(f"{symbol} {moment.timestamp()}")  # noqa: S311  # not for secrets
                yield {
                    "symbol": symbol,
                    "ts": moment,
                    "price": round(chance.uniform(90, 110), 2),
                    "size": chance.randint(1, 10),
                    # Tells trades of one instant apart. A source that has no trade ids needs no `seq`: it is then a
                    # hash of the values.
                    "seq": int(moment.timestamp()),
                }


def main() -> None:
    """Poll as often as asked, each time for the next ten seconds of trades."""
    parser = argparse.ArgumentParser(description="Poll a source of trades, and write what it answers.")
    parser.add_argument("--polls", type=int, default=5, help="how often to ask")
    parser.add_argument("--interval", type=float, default=0.2, help="seconds between two questions")
    parser.add_argument("--spool", type=Path, default=Path("poller.spool"), help="where rows wait for the store")
    options = parser.parse_args()

    source = Source()
    end = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
    with StoreClient(defaults={"provider": "example"}, spool=options.spool, confirm=True) as store:
        for _ in range(options.polls):
            start, end = end - OVERLAP, end + timedelta(seconds=10)
            store.write("ticks", source.trades(start, end))
            time.sleep(options.interval)
        store.flush()
        if not store.confirm(timeout_s=30):
            print(f"{store.pending_rows} rows are kept in {options.spool}; the next run sends them")
        counts = store.confirmed
    print(f"{store.sent} rows sent: {counts.written} new, {counts.unchanged} known already, {counts.rejected} rejected")


if __name__ == "__main__":
    main()
