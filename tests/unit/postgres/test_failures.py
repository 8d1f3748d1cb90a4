"""Whose fault a failed write is, by what the experiment showed; docs/failures.md has the same table."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from market_data_store.datasets import DATASETS
from market_data_store.postgres.failures import FEW_ROWS, Cause, Fault, Others, whose

DOCUMENT = (Path(__file__).parents[3] / "docs/failures.md").read_text()
BARS = DATASETS["bars"]
MANY = FEW_ROWS + 1


def cause(sqlstate: str, **names: str) -> Cause:
    return Cause(sqlstate, "reason", **names)


CHECK = cause("23514", table="bars_ohlcv", constraint="sane")
NO_PARTITION = cause("23514", table="bars_ohlcv")
RAISED = cause("P0001")
POLICY = cause("42501")
NO_COLUMN = cause("42703")
FOREIGN_KEY = cause("23503", table="bars_ohlcv", constraint="known")
OWN_COLUMN = cause("23502", table="bars_ohlcv", column="volume")
OWNERS_COLUMN = cause("23502", table="bars_ohlcv", column="desk")
UNIQUE = cause("23505", table="bars_ohlcv", constraint="other")
LOST, INTERNAL = cause("57P01"), cause("XX000")
WAITING = [cause(code) for code in ("55P03", "57014", "53400")]
OUTAGES = [cause(code) for code in ("25006", "28000", "40001", "40P01", "53100", "53300", "58030")]


@pytest.mark.parametrize("refused", [1, MANY])
@pytest.mark.parametrize(
    "of",
    [CHECK, NO_PARTITION, RAISED, POLICY, NO_COLUMN, FOREIGN_KEY, OWN_COLUMN, OWNERS_COLUMN, UNIQUE, LOST, INTERNAL],
)
def test_whatever_the_code_a_row_is_at_fault_where_others_go_in(of: Cause, refused: int) -> None:
    assert whose(of, BARS, Others.ROWS, refused) is Fault.ROW


@pytest.mark.parametrize(("others", "refused"), list(product(Others, [1, MANY])))
def test_no_row_is_at_fault_for_a_lock_a_time_limit_or_an_outage(others: Others, refused: int) -> None:
    assert {whose(of, BARS, others, refused) for of in WAITING} == {Fault.DATASET}
    assert {whose(of, BARS, others, refused) for of in OUTAGES} == {Fault.SERVER}


@pytest.mark.parametrize(
    ("of", "others", "few", "many"),
    [
        (CHECK, Others.A_COPY, Fault.ROW, Fault.ROW),
        (RAISED, Others.A_COPY, Fault.ROW, Fault.ROW),
        (POLICY, Others.A_COPY, Fault.ROW, Fault.ROW),
        (OWN_COLUMN, Others.A_COPY, Fault.ROW, Fault.ROW),
        (LOST, Others.A_COPY, Fault.ROW, Fault.ROW),
        (NO_PARTITION, Others.A_COPY, Fault.DATASET, Fault.DATASET),
        (FOREIGN_KEY, Others.A_COPY, Fault.ROW, Fault.DATASET),
        (CHECK, Others.NOTHING, Fault.DATASET, Fault.DATASET),
        (RAISED, Others.NOTHING, Fault.DATASET, Fault.DATASET),
        (NO_COLUMN, Others.NOTHING, Fault.DATASET, Fault.DATASET),
        (INTERNAL, Others.NOTHING, Fault.SERVER, Fault.SERVER),
        (CHECK, Others.UNKNOWN, Fault.ROW, Fault.DATASET),
        (cause("22003"), Others.UNKNOWN, Fault.ROW, Fault.DATASET),
        (cause("54000"), Others.UNKNOWN, Fault.ROW, Fault.DATASET),
        (OWN_COLUMN, Others.UNKNOWN, Fault.ROW, Fault.DATASET),
        (UNIQUE, Others.UNKNOWN, Fault.ROW, Fault.ROW),
        (OWNERS_COLUMN, Others.UNKNOWN, Fault.DATASET, Fault.DATASET),
        (NO_PARTITION, Others.UNKNOWN, Fault.DATASET, Fault.DATASET),
        (RAISED, Others.UNKNOWN, Fault.DATASET, Fault.DATASET),
        (POLICY, Others.UNKNOWN, Fault.DATASET, Fault.DATASET),
        (NO_COLUMN, Others.UNKNOWN, Fault.DATASET, Fault.DATASET),
        (LOST, Others.UNKNOWN, Fault.SERVER, Fault.SERVER),
    ],
)
def test_where_no_other_row_of_the_batch_goes_in_a_copy_of_a_stored_row_decides(
    of: Cause, others: Others, few: Fault, many: Fault
) -> None:
    assert whose(of, BARS, others, FEW_ROWS) is few
    assert whose(of, BARS, others, MANY) is many


def test_the_document_names_every_code_and_class_of_the_module() -> None:
    module = (Path(__file__).parents[3] / "src/market_data_store/postgres/failures.py").read_text()
    codes = set(re.findall(r'"([0-9A-Z]{2}(?:[0-9A-Z]{3})?)"', module))
    assert {"55P03", "23503", "XX", "F0"} <= codes
    assert codes <= set(re.findall(r"\b[0-9A-Z]{2}(?:[0-9A-Z]{3})?\b", DOCUMENT))
