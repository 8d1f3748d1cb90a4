"""The lanes by which rows travel: `live` for what happens now, `backfill` for history."""

from __future__ import annotations

from typing import Literal

from market_data_store.errors import InvalidMessage
from market_data_store.protocol import LANES

Lane = Literal["live", "backfill"]


def queue_of(lane: str) -> str:
    """Return the queue of a lane; raises `InvalidMessage` for a lane that does not exist."""
    if lane not in LANES:
        raise InvalidMessage(f"lane={lane!r} is unknown; use {' or '.join(map(repr, LANES))}")
    return LANES[lane]
