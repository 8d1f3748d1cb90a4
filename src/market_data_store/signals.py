"""The Celery signals of a write, sent in the pool process; whoever wants to hear of one connects a receiver.

`signal.connect(receiver, weak=False)`: Celery holds receivers weakly otherwise. A failing receiver stops no other.
"""

from __future__ import annotations

from celery.utils.dispatch import Signal

#: A batch was committed: `dataset`, `counts` (protocol.Counts), `messages`, `seconds`. Sent in the pool process.
batch_written = Signal(name="batch_written", providing_args={"dataset", "counts", "messages", "seconds"})
#: Rows became dead letters: `dataset` (None for a message that is unusable as a whole), `rows`. In the pool process.
rows_rejected = Signal(name="rows_rejected", providing_args={"dataset", "rows"})
#: Postgres did not take a write, which will be tried again: `sqlstate_class` (such as "40"; None for a lost connection
#: that gave no code). In the pool process.
write_retried = Signal(name="write_retried", providing_args={"sqlstate_class"})
