"""A producer with a ledger: writes numbered rows for ever, and notes after each `write` up to where they were accepted.

Row `n` of a dataset has the key `n % KEYS` and the value `n`: so what must be stored follows from the last number
accepted. Beside every `REFUSED_EACH`th row goes one with a negative value, which the table refuses, so the letters
follow from it, too. Started again, also after SIGKILL, the producer goes on from there; SIGTERM has it hand over what
its spool holds.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# By paths that version 0.4 has as well.
from market_data_store import StoreClient
from market_data_store.errors import Backpressure

#: By dataset, the column with the number.
VALUES = {"signals": "value", "bars": "volume"}
KEYS = 2_000
REFUSED_EACH = 500
_OTHERS: dict[str, dict[str, Any]] = {
    "signals": {"name": "n"},
    "bars": {"interval": "1m", "open": 1, "high": 1, "low": 1, "close": 1},
}
_ROWS_A_SECOND = 400


def expected(accepted: int) -> dict[int, int]:
    """By key, the newest value when the first so many rows were accepted."""
    return {number % KEYS: number for number in range(max(0, accepted - KEYS), accepted)}


def refused(begin: int, end: int) -> Iterable[int]:
    """The values of the refused rows that go beside the rows of these numbers."""
    return (-1 - number for number in range(begin, end) if number % REFUSED_EACH == 0)


def accepted(ledger: Path) -> dict[str, int]:
    """How many rows of each dataset were accepted."""
    counts = dict.fromkeys(VALUES, 0)
    return counts | {dataset: end for word, dataset, _, end in _lines(ledger) if word == "accepted"}


def begun(ledger: Path) -> Counter[tuple[str, int]]:
    """By dataset and value, how many times each refused row was given to `write`; a kill leaves open what it took."""
    calls = [(dataset, begin, end) for word, dataset, begin, end in _lines(ledger) if word == "begun"]
    return Counter((dataset, value) for dataset, begin, end in calls for value in refused(begin, end))


def _lines(ledger: Path) -> Iterator[tuple[str, str, int, int]]:
    for line in ledger.read_text().split("\n")[:-1] if ledger.exists() else []:
        word, dataset, begin, end = line.split()
        yield word, dataset, int(begin), int(end)


def _rows(dataset: str, begin: int, end: int) -> list[dict[str, Any]]:
    others, value = _OTHERS[dataset], VALUES[dataset]
    rows = [{"ts": number % KEYS, value: number, **others} for number in range(begin, end)]
    return rows + [{"ts": KEYS - number, value: number, **others} for number in refused(begin, end)]


def _pending_rows(client: StoreClient) -> int:
    # By the name that version 0.4 has for it.
    return client.pending_rows if hasattr(StoreClient, "pending_rows") else client.spooled


def main(name: str, directory: str, confirm: str, lane: str = "") -> None:
    """Write until SIGTERM, then until the spool is empty; without a lane, as version 0.4, which knows none."""
    stopping = False
    logging.basicConfig()

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    path = Path(directory) / f"{name}.ledger"
    counts, chance = accepted(path), random.Random(name)  # noqa: S311  # no secret
    ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    defaults = {"provider": name, "symbol": "S", "time_unit": "s"}
    spool = Path(directory) / f"{name}.spool"
    options: dict[str, Any] = {"confirm": confirm == "confirm", "confirm_timeout_s": 20} | (
        {"lane": lane} if lane else {}
    )
    with StoreClient(defaults=defaults, spool=spool, **options) as client:
        while not stopping:
            dataset, count = chance.choice(list(VALUES)), chance.randint(1, 100)
            begin, end = counts[dataset], counts[dataset] + count
            os.write(ledger, f"begun {dataset} {begin} {end}\n".encode())
            try:
                client.write(dataset, _rows(dataset, begin, end))
            except Backpressure:
                continue  # none was taken
            counts[dataset] = end
            os.write(ledger, f"accepted {dataset} {begin} {end}\n".encode())
            time.sleep(count / _ROWS_A_SECOND)
        client.flush()
        while _pending_rows(client):
            if confirm == "confirm":
                client.confirm(0.1)
            time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
