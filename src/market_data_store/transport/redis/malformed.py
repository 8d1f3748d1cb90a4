"""The list of what was in a queue and is not a message: it is bounded, and so is what is said of it."""

from __future__ import annotations

import logging
from collections import Counter
from time import monotonic

logger = logging.getLogger(__name__)

#: The most entries that the list keeps, the newest.
MOST_ENTRIES = 10_000
#: What an entry is that the script could not read.
NOT_A_MESSAGE = "not a message"
#: The most lines that a channel logs of it: one in so many seconds.
_SAY_EVERY_S = 1.0


class Malformed:
    """Counts what a channel has put into the list since it last said so."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._found: Counter[str] = Counter()
        self._said_at = float("-inf")

    def found(self, number: int, problem: str) -> None:
        """Count entries; `problem` holds no value of theirs."""
        self._found[problem] += number
        self.say()

    def say(self, *, is_last: bool = False) -> None:
        """Log what was found, unless a line was logged within the last second; called again and again."""
        now = monotonic()
        if not self._found or (now - self._said_at < _SAY_EVERY_S and not is_last):
            return
        logger.error(
            "%d entries were not messages, or could not be given back, and are kept in the list %s, which holds the "
            "newest %d (%s)",
            *(self._found.total(), self._key, MOST_ENTRIES),
            ", ".join(f"{problem}: {number}" for problem, number in sorted(self._found.items())),
        )
        self._found.clear()
        self._said_at = now
