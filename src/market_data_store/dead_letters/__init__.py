"""Dead letters: rows and messages that can never be written, kept with their reason, counted by it, and replayed."""

from market_data_store.dead_letters.keeping import (
    DeadLetter,
    Origin,
    keep,
    origin_of,
    settle,
    size_of,
    stored_id,
)
from market_data_store.dead_letters.letters import (
    Letter,
    count,
    get,
    locate,
    now,
    oldest,
    outcome,
    page,
    purge,
    reasons,
    rejections,
    stream,
)
from market_data_store.dead_letters.refused import refused
from market_data_store.dead_letters.selecting import EVERY, Where

__all__ = [
    "EVERY",
    "DeadLetter",
    "Letter",
    "Origin",
    "Where",
    "count",
    "get",
    "keep",
    "locate",
    "now",
    "oldest",
    "origin_of",
    "outcome",
    "page",
    "purge",
    "reasons",
    "refused",
    "rejections",
    "settle",
    "size_of",
    "stored_id",
    "stream",
]
