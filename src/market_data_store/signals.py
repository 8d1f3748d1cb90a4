"""The Celery signals that report writes. They are sent in the pool process.

Connect a receiver with `signal.connect(receiver, weak=False)`; without `weak=False` Celery holds it only weakly. A
receiver that fails does not stop the others.
"""

from __future__ import annotations

from celery.utils.dispatch import Signal

#: A batch was committed: `dataset`, `counts` (protocol.Counts), `messages`, `seconds`; `late`: for each stale row, by
#: how many seconds its message is older than that of the stored row; and `latencies`: for each message of the live
#: lane, the seconds from when it was enqueued to the commit, as far as they are known.
batch_written = Signal(
    name="batch_written", providing_args={"dataset", "counts", "messages", "seconds", "late", "latencies"}
)
#: Rows became dead letters: `dataset` (None for a message that is unusable as a whole), `rows`.
rows_rejected = Signal(name="rows_rejected", providing_args={"dataset", "rows"})
#: A write failed and will be retried: `sqlstate_class` (such as "40"; None for a lost connection that gave no code).
write_retried = Signal(name="write_retried", providing_args={"sqlstate_class"})
