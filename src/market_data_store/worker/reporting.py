"""Says what became of a batch: the signals that metrics hear, and the worker's log."""

from __future__ import annotations

import logging
from itertools import chain, islice

from market_data_store.postgres.batch import Written
from market_data_store.protocol import MAX_REASONS, TASK, Counts
from market_data_store.signals import batch_written, rows_rejected

logger = logging.getLogger(__name__)


def report(dataset: str, written: Written, seconds: float) -> None:
    """Report a batch that is committed, in `seconds` from its first attempt."""
    total = sum(written.counts, start=Counts())
    messages = len(written.counts)
    batch_written.send(
        sender=TASK, dataset=dataset, counts=total, messages=messages, seconds=seconds, late=written.late
    )
    numbers = ", ".join(f"{number} {name}" for name, number in total.numbers().items())
    logger.info("%s: %s, of %d messages in %.0f ms", dataset, numbers, messages, seconds * 1e3)
    if total.rejected:
        rows_rejected.send(sender=TASK, dataset=dataset, rows=total.rejected)
        # The pattern, not the reason: the reason quotes a value.
        named = [f"dead letter {r.letter}: {r.pattern}" for r in islice(chain(*written.rejections), MAX_REASONS)]
        if total.rejected > len(named):
            named.append("...")
        logger.warning("%s: %d rows rejected (%s)", dataset, total.rejected, "; ".join(named))
