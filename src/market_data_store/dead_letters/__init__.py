"""Dead letters: rows and messages that can never be written, kept with their reason, counted by it, and replayed."""

from market_data_store.dead_letters.letters import (
    DeadLetter,
    Letter,
    Origin,
    count,
    get,
    keep,
    origin_of,
    outcome,
    page,
    purge,
    reasons,
    settle,
    stored_id,
    stream,
)
from market_data_store.dead_letters.refused import refused

__all__ = [
    "DeadLetter",
    "Letter",
    "Origin",
    "count",
    "get",
    "keep",
    "origin_of",
    "outcome",
    "page",
    "purge",
    "reasons",
    "refused",
    "settle",
    "stored_id",
    "stream",
]
