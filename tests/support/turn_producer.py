"""A producer that writes one bar each time that it reads a number: the bar's close. It answers when the bar is sent."""

from __future__ import annotations

import logging
import sys

from market_data_store import StoreClient

BAR = {"symbol": "AAPL", "ts": "2024-01-02T14:30:00Z", "open": 1.0, "high": 100.0, "low": 0.5}


def main() -> None:
    logging.basicConfig()
    with StoreClient(defaults={"provider": "p", "interval": "1m"}) as store:
        for line in sys.stdin:
            store.write("bars", [BAR | {"close": float(line)}])
            store.flush()
            sys.stdout.write(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
