"""A producer with a ledger: writes numbered rows for ever, and notes after each `write` up to where they were accepted.

Row `n` of a producer has the key `n % KEYS` and the value `n`: so what must be stored follows from the last number
accepted. Started again, also after SIGKILL, it goes on from there; SIGTERM has it hand over what its spool holds.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from market_data_store.errors import Backpressure
from market_data_store.producer.client import StoreClient

KEYS = 2_000
_ROWS_A_SECOND = 400


def expected(accepted: int) -> dict[int, int]:
    """By key, the newest value when the first so many rows were accepted."""
    return {number % KEYS: number for number in range(max(0, accepted - KEYS), accepted)}


def accepted(ledger: Path) -> int:
    """How many rows were accepted."""
    lines = ledger.read_text().split("\n")[:-1] if ledger.exists() else []
    return int(lines[-1]) if lines else 0


def _row(number: int) -> dict[str, Any]:
    return {"ts": number % KEYS, "value": number}


def main(name: str, directory: str, confirm: str) -> None:
    """Write until SIGTERM, then until the spool is empty."""
    stopping = False

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    path = Path(directory) / f"{name}.ledger"
    number, chance = accepted(path), random.Random(name)  # noqa: S311  # no secret
    ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    defaults = {"provider": name, "symbol": "S", "name": "n", "time_unit": "s"}
    spool = Path(directory) / f"{name}.spool"
    with StoreClient(defaults=defaults, spool=spool, confirm=confirm == "confirm", confirm_timeout_s=20) as client:
        while not stopping:
            rows = chance.randint(1, 100)
            try:
                client.write("signals", [_row(n) for n in range(number, number + rows)])
            except Backpressure:
                continue  # none was taken
            number += rows
            os.write(ledger, f"{number}\n".encode())
            time.sleep(rows / _ROWS_A_SECOND)
        client.flush()
        while client.pending_rows:
            if confirm == "confirm":
                client.confirm(0.1)
            time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
