"""What becomes of a message that could not be done in its turn."""

from __future__ import annotations

from billiard.exceptions import SoftTimeLimitExceeded

from market_data_store.errors import DatabaseUnavailable, DatasetUnavailable, PartitionsMissing
from market_data_store.worker.envelope import Envelope, GiveBack, Hold


class OutOfTime(SoftTimeLimitExceeded):
    """The time limit was exceeded in the middle of a write; `reached` letters and rows of the message are done."""

    def __init__(self, reached: int) -> None:
        super().__init__()
        self.reached = reached


#: What keeps a message from being done.
UNFINISHED = (DatabaseUnavailable, SoftTimeLimitExceeded, MemoryError)


def put_aside(error: DatabaseUnavailable | SoftTimeLimitExceeded | MemoryError, envelope: Envelope) -> Hold | GiveBack:
    """Return where the message waits: for its dataset, for its letters, or for another turn.

    A turn that was ended counts, unless it got farther than those before it: then the message is done sooner or later.
    """
    if isinstance(error, DatasetUnavailable):
        partly = isinstance(error, PartitionsMissing)
        return Hold(error.dataset, error.sqlstate, error.reason or None, envelope.enqueued_at, partly)
    if isinstance(error, DatabaseUnavailable):
        return GiveBack(str(error), alone=not error.is_away, trouble=error.trouble)
    if isinstance(error, MemoryError):
        return GiveBack("the pool process may have no more memory (MDS_POOL_MEMORY_BYTES)", counted=True)
    reason = "the soft time limit was exceeded"
    if isinstance(error, OutOfTime) and error.reached > envelope.reached:
        return GiveBack(reason, reached=error.reached)
    return GiveBack(reason, counted=True)
