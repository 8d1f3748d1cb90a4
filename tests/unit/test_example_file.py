"""The file that the README loads has rows of the demo, so that neither stores the other's a second time."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

from market_data_store.cli.demo import DEFAULTS, FILE

EXAMPLE = Path(__file__).parents[2] / "examples/bars.csv.gz"


def test_the_example_file_has_the_first_bars_of_the_demo() -> None:
    with gzip.open(EXAMPLE, "rt", newline="") as lines:
        example = list(csv.DictReader(lines))
    with gzip.open(FILE, "rt", newline="") as lines:
        demo = [
            {**DEFAULTS, "ts": f"{row.pop('timestamp_utc').replace(' ', 'T')}Z", **row} for row in csv.DictReader(lines)
        ]
    assert len(example) == 5_449
    assert example == demo[: len(example)]
