"""The kinds of users' own datasets: no digit is lost, and what is wrong is said, whichever way a row comes."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from support.decoding import DecodedRows, decode_frame, decode_rows
from support.own_datasets import ROW, datasets, funding

from market_data_store.wire.arrow import frame_of

DATASET = funding()


def decoded(rows: list[Any] | bytes) -> DecodedRows:
    return decode_rows(DATASET, rows if isinstance(rows, bytes) else json.dumps(rows).encode(), {}, 0)


def column(found: DecodedRows, name: str) -> list[Any]:
    assert not found.rejects, found.rejects
    return found.columns[[c.name for c in DATASET.columns].index(name)]


def with_rate(rate: str) -> bytes:
    """The text of a row whose rate is written so."""
    return b"[" + json.dumps({**ROW, "rate": 0}).replace('"rate": 0', f'"rate": {rate}').encode() + b"]"


@pytest.mark.parametrize(
    "rate", ["12345678901234567890.123456789012345678", "0.1", "-1E-18", "7", '"0.100"', '"1e3"', "0.30000000000000004"]
)
def test_no_digit_of_a_number_is_lost_in_json(rate: str) -> None:
    expected = Decimal(rate.strip('"'))
    assert column(decoded(with_rate(rate)), "rate") == [expected]
    # Read one by one, for the sake of another row; and by Python's parser, for the sake of its NaN.
    for other in ({**ROW, "trades": "x"}, {**ROW, "mark": float("nan"), "trades": "x"}):
        found = decoded(with_rate(rate)[:-1] + b", " + json.dumps(other).encode() + b"]")
        assert [reject.position for reject in found.rejects] == [1]
        assert found.columns[[c.name for c in DATASET.columns].index("rate")] == [expected]


def test_floats_of_python_are_the_digits_that_they_show() -> None:
    assert column(decode_rows(DATASET, [{**ROW, "rate": 0.1}], {}, 0), "rate") == [Decimal("0.1")]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("rate", "x", "rate: 'x' is not a number"),
        ("rate", True, "rate: True is not a number"),
        ("rate", "NaN", "rate: 'NaN' is not a finite number"),
        ("rate", None, "rate: null (required); give it in the row or in defaults"),
        ("rate", "1e20", "rate: '1e20' does not fit numeric(38,18): 20 digits before the point, 18 after it"),
        ("rate", "1e-19", "rate: '1e-19' does not fit numeric(38,18): 20 digits before the point, 18 after it"),
        ("level", 0.00001, "level: 1e-05 does not fit numeric(20,4): 16 digits before the point, 4 after it"),
        (
            "bids",
            [1, "a"],
            "bids: [1, 'a'] is not a list of numbers of at most 64 bits; send a JSON list such as [1.5, 2]",
        ),
        (
            "bids",
            [1e19],
            "bids: [1e+19] is not a list of numbers of at most 64 bits; send a JSON list such as [1.5, 2]",
        ),
        ("bids", 3, "bids: 3 is not a list of numbers of at most 64 bits; send a JSON list such as [1.5, 2]"),
        ("raw", 3, "raw: 3 is not an object or a list"),
        ("raw", "{", "raw: '{' is not the JSON of an object or a list, is longer than 65,536 bytes, or holds a NUL "),
    ],
)
def test_a_value_that_does_not_fit_rejects_its_row(field: str, value: Any, reason: str) -> None:
    for way in (json.dumps([ROW, {**ROW, field: value}]).encode(), [ROW, {**ROW, field: value}]):
        found = decode_rows(DATASET, way, {}, 0)
        assert [reject.position for reject in found.rejects] == [1]
        # Of a number in JSON the digits are quoted.
        assert found.rejects[0].reason.replace("'1e-05'", "1e-05").startswith(reason)


def test_lists_and_documents_come_as_they_are_or_as_texts_of_json() -> None:
    texts = {**ROW, "bids": "[1.5, -0, null]", "raw": '[{"a": "é"}]'}
    found = decoded([texts, {**ROW, "bids": [], "raw": []}, {**ROW, "bids": "", "raw": None}])
    assert [str(value) for value in column(found, "bids")] == ["[1.5, -0.0, None]", "[]", "None"]
    assert column(found, "raw") == ['[{"a":"é"}]'.encode(), b"[]", None]


def test_a_number_that_is_none_is_null_in_a_list() -> None:
    found = decode_rows(DATASET, [{**ROW, "bids": [float("nan"), float("inf"), 1.0]}], {}, 0)
    assert column(found, "bids") == [[None, None, 1.0]]


def frame(**columns: Any) -> DecodedRows:
    length = len(next(iter(columns.values())))
    plain = {
        name: [ROW[name]] * length for name in ("provider", "symbol", "ts", "level", "rate") if name not in columns
    }
    return decode_frame(DATASET, frame_of(pa.table({**plain, **columns})), {}, 0)


@pytest.mark.parametrize(
    "rates",
    [
        pa.array([Decimal("1.10"), Decimal(2)], pa.decimal128(10, 2)),
        pa.array([Decimal("1.10"), Decimal(2)], pa.decimal256(60, 30)),
        pa.array(["1.1", "2"], pa.large_string()),
        pa.array([1.1, 2.0]),
        pa.array(["1.1", "2"]).dictionary_encode(),
    ],
    ids=str,
)
def test_exact_numbers_come_as_arrow_has_them(rates: Any) -> None:
    assert column(frame(rate=rates), "rate") == [Decimal("1.1"), Decimal(2)]


def test_a_number_of_a_table_that_does_not_fit_rejects_its_row() -> None:
    found = frame(level=pa.array([Decimal("1.00001"), Decimal(2)], pa.decimal128(10, 5)))
    assert [reject.reason for reject in found.rejects] == [
        "level: '1.00001' does not fit numeric(20,4): 16 digits before the point, 4 after it"
    ]


@pytest.mark.parametrize(
    "type_", [pa.list_(pa.float32()), pa.large_list(pa.int64()), pa.list_(pa.float64(), 2)], ids=str
)
def test_lists_of_numbers_come_as_arrow_has_them(type_: Any) -> None:
    assert column(frame(bids=pa.array([[1, 2], None], type_)), "bids") == [[1.0, 2.0], None]


def test_a_hash_of_exact_numbers_does_not_change_when_their_column_is_widened() -> None:
    text = """
        [trade]
        key = ["provider", "ts", "id"]
        [trade.columns]
        provider = "text"
        ts = "timestamptz"
        id = { kind = "bigint", content_hash = ["price"] }
        price = "numeric(10,2)"
    """
    row = {"provider": "p", "ts": "2024-01-02T00:00:00Z", "price": "1.5"}
    ids = [
        decode_rows(datasets(each)["trade"], way, {}, 0).columns[2]
        for each in (text, text.replace("(10,2)", "(20,8)"))
        for way in (json.dumps([row]).encode(), [row])
    ]
    assert ids[0][0] > 0
    assert ids == [ids[0]] * 4
