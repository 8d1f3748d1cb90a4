"""Dead letters: rows and messages that can never be written, kept with their reason, counted by it, and replayed."""

from market_data_store.dead_letters.letters import (
    DeadLetter,
    Letter,
    count,
    get,
    keep,
    outcome,
    page,
    purge,
    reasons,
    settle,
    stored_id,
    stream,
)

__all__ = [
    "DeadLetter",
    "Letter",
    "count",
    "get",
    "keep",
    "outcome",
    "page",
    "purge",
    "reasons",
    "settle",
    "stored_id",
    "stream",
]
