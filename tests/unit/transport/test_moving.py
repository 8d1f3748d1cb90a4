"""How many turns a message has had, by headers of any type."""

from __future__ import annotations

from typing import Any

import pytest

from market_data_store.transport.moving import counted_turns


@pytest.mark.parametrize(
    ("headers", "turns"),
    [
        (None, 0),
        ({}, 0),
        ({"turns": 2}, 2),
        ({"turns": 1, "x-delivery-count": 2}, 3),
        ({"turns": "2", "x-delivery-count": None}, 0),
        ({"turns": True, "x-delivery-count": -1}, 0),
        ({"turns": 10**30}, 0),
    ],
)
def test_only_whole_numbers_count(headers: dict[str, Any] | None, turns: int) -> None:
    assert counted_turns(headers) == turns
