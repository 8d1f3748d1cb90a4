"""What the name of an exported file says of its format."""

from __future__ import annotations

from pathlib import Path

import pytest

from market_data_store.errors import InvalidMessage
from market_data_store.files.written_formats import written_format


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.csv", ("csv", False)),
        ("a.b.CSV.GZ", ("csv", True)),
        ("a.ndjson", ("ndjson", False)),
        ("a.jsonl.gz", ("ndjson", True)),
        ("a.parquet", ("parquet", False)),
        ("-", ("ndjson", False)),
    ],
)
def test_the_name_says_the_format(name: str, found: tuple[str, bool]) -> None:
    assert written_format(Path(name)) == found


@pytest.mark.parametrize("name", ["a", "a.gz", "csv", "a.csv.bz2", "a.csv.17.part", "a.csv.gz.gz"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidMessage, match="unknown format; name it"):
        written_format(Path(name))
