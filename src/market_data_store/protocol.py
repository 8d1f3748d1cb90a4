"""What producers and workers agree on: names, headers, content types, and the result of a message.

It imports nothing from this package, so that either side can use it without the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

#: Name of the task.
TASK = "store.write"
#: Names of the queues in which its messages wait: live rows, and history.
QUEUE = "store.write"
BACKFILL_QUEUE = "store.backfill"
#: These queues by the names of their lanes. Workers take the messages of the first one first.
LANES = {"live": QUEUE, "backfill": BACKFILL_QUEUE}
#: What `again_queue` returns for `QUEUE`.
AGAIN_QUEUE = "store.write.again"
#: `StoreClient`'s serializer: it writes ordinary JSON, but inserts rows that are already encoded without encoding them
#: again.
SERIALIZER = "store-json"
#: `StoreClient`'s serializer of tables: the task's second argument already is the body (`wire.arrow.pack`).
TABLE_SERIALIZER = "store-arrow"
#: The name under which a worker adds to its answer which queues it consumes.
ANSWER = "market_data_store"
#: What workers find in Redis and is not a message, they keep in a list. Its name is that of kombu's record of
#: unacknowledged messages, and this.
MALFORMED = "_malformed"
#: The header with the time at which a message was first enqueued, in epoch seconds.
ENQUEUED_AT_HEADER = "enqueued_at"
#: The header that names the dead letters from which a message was made, see `dead_letters.replay`.
REPLAYS_HEADER = "replays"
#: The header that a worker gives a message that it puts into a queue: how many of its turns have ended badly.
TURNS_HEADER = "turns"
#: The header that says how many letters and rows of the message are done, if a turn was ended in the middle.
REACHED_HEADER = "reached"
#: The content type of a message as any Celery client sends it.
JSON = "application/json"
#: The content type of a message that is an Arrow IPC stream.
ARROW = "application/vnd.apache.arrow.stream"
#: The first bytes of an IPC stream; JSON never begins with them.
_MAGIC = b"\xff\xff\xff\xff"


def again_queue(queue: str = QUEUE) -> str:
    """Return where the messages of a lane's queue wait whose turn has ended badly; they are processed one at a time."""
    return f"{queue}.again"


def held_queue(dataset: str, queue: str = QUEUE) -> str:
    """Return where the dataset's messages of a lane's queue wait while its table takes no row."""
    return f"{queue}.held.{dataset}"


def is_arrow(body: bytes) -> bool:
    """Return whether a message's body is an Arrow IPC stream, judged by its first bytes."""
    return body.startswith(_MAGIC)


class Counts(msgspec.Struct):
    """What became of a message's rows. The numbers add up to the rows sent."""

    #: First, because Flower shows the beginning of a result.
    rejected: int = 0
    written: int = 0
    unchanged: int = 0
    #: Rows that are older than the stored ones.
    stale: int = 0
    #: Rows that another row of the same message replaced. Version 0.4 does not count them apart.
    superseded: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Add number by number."""
        return Counts(
            *(a + b for a, b in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True))
        )

    def __sub__(self, other: Counts) -> Counts:
        """Subtract number by number."""
        return Counts(
            *(a - b for a, b in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True))
        )

    @property
    def rows(self) -> int:
        """The rows sent."""
        return sum(msgspec.structs.astuple(self))

    def numbers(self) -> dict[str, int]:
        """Return the numbers as a result has them: `superseded` only if there are any, the others always."""
        numbers: dict[str, int] = msgspec.structs.asdict(self)
        if not self.superseded:
            del numbers["superseded"]
        return numbers


class Rejection(msgspec.Struct, frozen=True):
    """Why a row was rejected, and where it is kept."""

    #: The row's index in its message.
    position: int
    reason: str
    #: The id of its dead letter; None if somebody has purged it already.
    letter: int | None
    #: The reason without values; results do not have it.
    pattern: str


#: A result says of at most this many rejected rows why they were rejected, the first ones.
MAX_REASONS = 3


def result_of(counts: Counts, rejections: Sequence[Rejection]) -> dict[str, Any]:
    """Return a message's result as its producer gets it: the numbers and, if rows were rejected, `reasons`."""
    reasons = [{"position": r.position, "reason": r.reason, "letter": r.letter} for r in rejections[:MAX_REASONS]]
    return counts.numbers() | ({"reasons": reasons} if reasons else {})


class Replayed(msgspec.Struct, frozen=True):
    """The dead letters from which a message was made; the message carries this in a header."""

    task_id: str
    #: The id of each row's letter, or of the one letter that holds the whole message.
    ids: tuple[Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)], ...]
    whole: bool
    #: What `dead_letters.signing` makes of the others; workers before 0.5 ignore it.
    signature: str = ""
