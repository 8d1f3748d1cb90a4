"""How many rows a batch of history may have."""

from __future__ import annotations

import pytest

from market_data_store.worker.pace import FIRST_ROWS, LEAST_ROWS, TARGET_S, Pace

MOST = 5_000


@pytest.mark.parametrize(
    ("rows_per_s", "transaction_s", "least", "most"),
    [(20_000, 0.005, 1_000, 1_200), (5_000, 0.005, 200, 300), (1_000_000, 0.003, MOST, MOST), (100_000, 0.2, 100, 100)],
)
def test_it_finds_what_takes_its_time(rows_per_s: float, transaction_s: float, least: int, most: int) -> None:
    pace = Pace(MOST)
    for _ in range(50):
        pace.note(pace.rows, transaction_s + pace.rows / rows_per_s)
    assert least <= pace.rows <= most


def test_it_begins_with_little_and_one_batch_changes_it_little() -> None:
    pace = Pace(MOST)
    assert pace.rows == FIRST_ROWS
    pace.note(FIRST_ROWS, TARGET_S / 100)
    assert pace.rows == FIRST_ROWS * 1.5
    pace.note(pace.rows, TARGET_S * 100)
    assert pace.rows == FIRST_ROWS * 1.5 * 0.5


def test_a_short_batch_that_was_quick_changes_nothing() -> None:
    pace = Pace(MOST)
    pace.note(1, 0.005)
    assert pace.rows == FIRST_ROWS


def test_a_large_message_says_how_much_is_too_much() -> None:
    pace = Pace(MOST)
    for _ in range(20):
        pace.note(100_000, 20.0)
    assert 290 <= pace.rows <= 310


def test_it_keeps_its_bounds() -> None:
    pace = Pace(MOST)
    for _ in range(20):
        pace.note(MOST, 60.0)
    assert pace.rows == LEAST_ROWS
    assert Pace(50).rows == 50
