"""The rows of a file, as the worker gets them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from market_data_store.datasets import DATASETS
from market_data_store.errors import InvalidMessage
from market_data_store.files.reader import RowFile, format_of
from market_data_store.producer.encoding import encode


def sent(file: Path, dataset: str, text: str) -> Any:
    """The rows as JSON makes them."""
    file.write_text(text, newline="")
    return json.loads(encode(list(RowFile(file, DATASETS[dataset]).rows()), 0))


def test_an_empty_field_of_a_csv_is_null(tmp_path: Path) -> None:
    assert sent(tmp_path / "x.csv", "bars", 'open,symbol\n1,\n"", \n') == [
        {"open": "1", "symbol": None},
        {"open": None, "symbol": " "},
    ]


def test_metadata_of_a_csv_is_json(tmp_path: Path) -> None:
    csv = 'metadata,url\n"{""a"": [1, ""x""]}",{}\nno JSON,\n,\n'
    assert sent(tmp_path / "x.csv", "news", csv) == [
        {"metadata": {"a": [1, "x"]}, "url": "{}"},
        {"metadata": "no JSON", "url": None},
        {"metadata": None, "url": None},
    ]


def test_an_integer_in_the_column_seq_is_itself_and_a_trade_id_a_text(tmp_path: Path) -> None:
    values = ["0", "-5", str(2**63 - 1), str(2**63), str(-(2**63)), "007", "1e5", "1.5", "NaN", "T-1", "-0", "٣"]
    rows = sent(tmp_path / "x.csv", "ticks", "seq,trade_id\n" + "".join(f"{value},{value}\n" for value in values))
    assert [row["seq"] for row in rows] == [0, -5, 2**63 - 1, str(2**63), -(2**63), *values[5:]]
    assert [row["trade_id"] for row in rows] == values


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.csv", ("csv", False)),
        ("a.b.CSV.GZ", ("csv", True)),
        ("a.ndjson", ("ndjson", False)),
        ("a.jsonl.gz", ("ndjson", True)),
    ],
)
def test_the_name_says_the_format(name: str, found: tuple[str, bool]) -> None:
    assert format_of(Path(name)) == found


@pytest.mark.parametrize("name", ["a", "a.gz", "csv", "a.csv.bz2", "a.csv.17.part", "a.csv.gz.gz", "-"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidMessage, match="unknown format; name it"):
        format_of(Path(name))


def test_a_gzipped_file_is_read_whatever_the_case_of_its_name(tmp_path: Path) -> None:
    file = tmp_path / "X.CSV.GZ"
    file.write_bytes(gzip.compress(b"open\n1\n"))
    assert list(RowFile(file, DATASETS["bars"]).rows()) == [{"open": "1"}]
