"""Rows that hold every awkward value: the extremes of each type, nulls, and texts that formats may take for others."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Integer, Text
from sqlalchemy.dialects.postgresql import ARRAY, DATE, DOUBLE_PRECISION, JSONB
from sqlalchemy.types import BigInteger, DateTime

from market_data_store.datasets import Dataset
from market_data_store.wire.text import name_of

Row = dict[str, Any]

TEXTS = [
    *("a", "Ünï 漢字 😀", 'qu"ote', '""', "'", "new\nline", "\r\nboth\r", "a,b;c", " around ", "\t", "back\\slash\\n"),
    *("\\N", "\\.", "null", "NULL", "-0", "1e5", "true", "NaN", '{"a": 1}', "\x01\x02\x7f", "\u2028\x85", "0"),
    "x" * 128,
]
NUMBERS = [
    *(0.0, -0.0, 5e-324, 2.2250738585072014e-308, 0.1 + 0.2, 1 / 3, 1e-7, 1e15, 1e16, 1e17, 123_456_789.123_456_79),
    *(2.0**63, -(2.0**63), 9_007_199_254_740_993.0, -1.5),
]
TIMES = ["0001-01-01T00:00:00Z", "2024-01-02T14:30:00.000001Z", "9999-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.5Z"]
METADATA: list[Any] = [
    {},
    {"text": 'a"b\\c\n', "deep": [{"list": [1, -0.0, None, True, {"": ""}]}], "ä": "😀"},
    {"huge": 1e300, "tiny": 1e-300, "big": 2**64, "exact": 0.1, "whole": 1.0},
]


def awkward(dataset: Dataset) -> list[Row]:
    """Rows of different keys, which have among them each awkward value in each column of its type."""
    rows: list[Row] = [{} for _ in range(150)]
    for place, column in enumerate(dataset.columns):
        values: list[Any]
        if column.name == "option_type":
            values = ["C", "P"]
        elif isinstance(column.type, Text):
            values = TEXTS if column.nullable else [text for text in TEXTS if name_of(text)]
        elif isinstance(column.type, ARRAY):
            values = [[], TEXTS, ["null"], ["["], ['"', "\\", "a,b", "{}"]]
        elif isinstance(column.type, Boolean):
            values = [True, False]
        elif isinstance(column.type, Integer) and not isinstance(column.type, BigInteger):
            values = [0, 7, 999]
        elif isinstance(column.type, DOUBLE_PRECISION):
            values = NUMBERS
        elif isinstance(column.type, DateTime):
            values = [*TIMES, *(f"2024-01-02T00:00:{i:02}.{i:06}Z" for i in range(60))]
        elif isinstance(column.type, DATE):
            values = ["0001-01-01", "2024-02-29", "9999-12-31"]
        elif isinstance(column.type, JSONB):
            values = METADATA
        else:
            assert isinstance(column.type, BigInteger)
            values = [0, -5, 7, 2**63 - 1, -(2**63), 1_234_567_890_123_456_789]
        values = [*values, None] if column.nullable or column.info["rule"].content_hash else values
        for number, row in enumerate(rows):
            row[column.name] = values[(number * (place + 1) + number // len(values)) % len(values)]
    return rows
