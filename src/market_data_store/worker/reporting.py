"""Says what became of a batch: the signals that metrics hear, and the worker's log."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from itertools import chain, islice

from market_data_store.causes import Cause, fields_of
from market_data_store.logs.repeated import Repeated
from market_data_store.postgres.batch import Written
from market_data_store.protocol import MAX_REASONS, TASK, Counts
from market_data_store.signals import batch_written, rows_rejected

logger = logging.getLogger(__name__)

#: A stale row counts here if it is late by more seconds: what several workers write at once may change places.
_LATE_S = 1.0
#: The share of such rows from which on a clock is suspected.
_SUSPECT_SHARE = 0.05
#: Seconds over which the rows of a dataset are counted; one line at most is logged in them.
_WINDOW_S = 60.0


class _Clocks:
    """Warns of rows that are not stored because their producer's clock seems to be behind."""

    def __init__(self) -> None:
        #: By dataset: when its window began, how many rows came since, and how many were late; -1 after the line.
        self._windows: dict[str, tuple[float, int, int]] = {}

    def heard(self, dataset: str, rows: int, behind: Sequence[float]) -> None:
        now = time.monotonic()
        began, seen, late = self._windows.get(dataset, (now, 0, 0))
        if now - began >= _WINDOW_S:
            began, seen, late = now, 0, 0
        if late >= 0:
            seen, late = seen + rows, late + sum(late_s > _LATE_S for late_s in behind)
            if late > _SUSPECT_SHARE * seen:
                logger.warning(
                    "%s: %d of %d rows are stale: rows that count as sent up to %.0f s later are stored. The clock of "
                    "their producer is behind, or they were delivered late",
                    *(dataset, late, seen, max(behind)),
                    extra=fields_of(Cause.ROWS_STALE),
                )
                late = -1  # said
        self._windows[dataset] = began, seen, late


class _Batches:
    """Says what was written: a batch at once, and what follows it once a minute, with those that were not said."""

    def __init__(self) -> None:
        #: By dataset: when a line was said, and what was written since, in how many messages.
        self._since: dict[str, tuple[float, Counts, int]] = {}

    def heard(self, dataset: str, counts: Counts, messages: int, seconds: float) -> None:
        now = time.monotonic()
        said_at, before, more = self._since.get(dataset, (-_WINDOW_S, Counts(), 0))
        if now - said_at < _WINDOW_S:
            self._since[dataset] = said_at, before + counts, more + messages
            logger.debug(*_line(dataset, counts, messages, f"{seconds * 1e3:.0f} ms"))
            return
        took = f"{now - said_at:.0f} s" if more else f"{seconds * 1e3:.0f} ms"
        logger.info(*_line(dataset, before + counts, more + messages, took), extra={"event": "written"})
        self._since[dataset] = now, Counts(), 0


def _line(dataset: str, counts: Counts, messages: int, took: str) -> tuple[str, str, str, int, str]:
    numbers = ", ".join(f"{number} {name}" for name, number in counts.numbers().items())
    return "%s: %s, of %d messages in %s", dataset, numbers, messages, took


class Rejects:
    """Says what was refused: each pattern of a reason at once, then less and less often while it goes on."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[str, tuple[float, Repeated]] = {}

    def heard(self, name: str, pattern: str, text: str) -> None:
        """Note rows, or messages, of this name that were refused for this reason."""
        now = time.monotonic()
        heard_at, said = self._said.get(name, (-_WINDOW_S, None))
        if said is None or now - heard_at >= _WINDOW_S:
            said = Repeated(self._log)
        self._said[name] = now, said
        said.happened(text, kind=pattern, event="rejected", cause=Cause.LETTERS_GROW)


_clocks, _batches, _rejects = _Clocks(), _Batches(), Rejects(logger)


def report(dataset: str, written: Written, seconds: float, latencies: Sequence[float] = ()) -> None:
    """Report a batch that is committed, in `seconds` from its first attempt; `latencies` as in `batch_written`."""
    total = sum(written.counts, start=Counts())
    messages = len(written.counts)
    batch_written.send(
        sender=TASK,
        dataset=dataset,
        counts=total,
        messages=messages,
        seconds=seconds,
        late=written.late,
        latencies=latencies,
    )
    _batches.heard(dataset, total, messages, seconds)
    _clocks.heard(dataset, total.rows, written.behind)
    if total.rejected:
        rows_rejected.send(sender=TASK, dataset=dataset, rows=total.rejected)
        # The pattern, not the reason: the reason quotes a value.
        named = [f"dead letter {r.letter}: {r.pattern}" for r in islice(chain(*written.rejections), MAX_REASONS)]
        if total.rejected > len(named):
            named.append("...")
        patterns = sorted({r.pattern for r in chain(*written.rejections)})
        text = f"{dataset}: {total.rejected} rows rejected ({'; '.join(named)})"
        _rejects.heard(dataset, "; ".join(patterns), text)
