"""The digest of rows: the same however they are cut and laid out, another one for any other value or order."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from market_data_store.files.digests import Digest

COLUMNS = {
    "text": pa.array(["a", "", None, "é", "bc"]),
    "number": pa.array([1.5, None, float("nan"), -0.0, 0.0]),
    "count": pa.array([1, None, 3, 4, 5], pa.int64()),
    "flag": pa.array([True, None, False, True, False]),
    "day": pa.array([date(2024, 1, 2), None, date(1970, 1, 1), None, None]),
    "ts": pa.array([*(datetime(2024, 1, day, tzinfo=UTC) for day in range(1, 5)), None], pa.timestamp("us", tz="UTC")),
    "exact": pa.array([Decimal("1.50"), None, Decimal("0.00"), Decimal("-1.00"), None], pa.decimal128(4, 2)),
    "list": pa.array([["a", "b"], None, [], ["ab"], [None, "c"]]),
    "numbers": pa.array([[1.0], None, [], [None, 2.0], [3.0]], pa.list_(pa.float64())),
}
ROWS = pa.record_batch(COLUMNS)


def digest(*batches: pa.RecordBatch) -> str:
    found = Digest()
    for batch in batches:
        found.add(batch)
    return found.text


def test_cuts_do_not_count() -> None:
    whole = digest(ROWS)
    assert digest(ROWS.slice(0, 2), ROWS.slice(2, 0), ROWS.slice(2)) == whole
    assert digest(*(ROWS.slice(row, 1) for row in range(5))) == whole
    assert digest(ROWS.take(pa.array(range(5)))) == whole


@pytest.mark.parametrize("name", COLUMNS)
def test_another_order_or_a_null_counts(name: str) -> None:
    one = ROWS.select([name])
    assert digest(one.take(pa.array([1, 0, 2, 3, 4]))) != digest(one)
    assert digest(one.take(pa.array([None, 1, 2, 3, 4], pa.int32()))) != digest(one)
    assert digest(one.slice(0, 4)) != digest(one)


def test_values_do_not_run_into_each_other() -> None:
    def texts(*values: str | None) -> str:
        return digest(pa.record_batch({"text": pa.array(values, pa.string())}))

    assert len({texts("ab", "c"), texts("a", "bc"), texts("abc", ""), texts("abc", None), texts("abc")}) == 5
    lists = [[["a"], ["b"]], [["a", "b"], []], [["a", "b"], None], [[], ["a", "b"]]]
    assert len({digest(pa.record_batch({"list": pa.array(each, pa.list_(pa.string()))})) for each in lists}) == 4
