"""How many rows a batch of history may have, so that a live row waits only a moment for it. Pure: no clock."""

from __future__ import annotations

#: A batch of history takes about so many seconds: this is what a live row waits for at most.
TARGET_S = 0.06
#: The limit at the beginning, and the least. A batch of fewer rows takes hardly less time: its transaction takes most.
FIRST_ROWS = 500
LEAST_ROWS = 100
#: One batch changes the limit by at most these factors. It shrinks faster than it grows: live rows wait meanwhile.
_LEAST_CHANGE = 0.5
_MOST_CHANGE = 1.5
#: Of the way to what a batch says, the limit goes half: one batch may have met a checkpoint, or a busy processor.
_WEIGHT = 0.5
_SHORTEST_S = 1e-3


class Pace:
    """Follows how fast rows are written, by the batches that have ended."""

    def __init__(self, most_rows: int) -> None:
        self._most = most_rows
        self._rows = float(min(FIRST_ROWS, most_rows))

    @property
    def rows(self) -> int:
        """The limit now; a single message may have more."""
        return int(self._rows)

    def note(self, rows: int, seconds: float) -> None:
        """Note that a batch of so many rows took so long, from when it was given to the pool.

        A short batch that took little time does not say that a longer one takes too much: most of it is for the
        transaction.
        """
        fitting = rows * TARGET_S / max(seconds, _SHORTEST_S)
        if fitting > 0 and (fitting < self._rows) == (seconds > TARGET_S):
            change = (fitting / self._rows) ** _WEIGHT
            changed = self._rows * min(max(change, _LEAST_CHANGE), _MOST_CHANGE)
            self._rows = min(max(changed, LEAST_ROWS), self._most)
