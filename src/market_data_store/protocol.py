"""What producers and workers agree on: names, headers, content types, and the result of a message.

Imports nothing of the package, so that either side can use it without the other.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

#: The task.
TASK = "store.write"
#: The queue that its messages wait in.
QUEUE = "store.write"
#: Serializer of `StoreClient`: JSON to everyone else, but rows that are encoded already go in as they are.
SERIALIZER = "store-json"
#: Its serializer of tables: the second argument, which is the body already (`columnar.pack`).
TABLE_SERIALIZER = "store-arrow"
#: The header that holds when a message was first enqueued, in epoch seconds.
ENQUEUED_AT_HEADER = "enqueued_at"
#: The header that names the dead letters of which a message was made, see `replay`.
REPLAYS_HEADER = "replays"
#: The content type of a message as any Celery client sends it.
JSON = "application/json"
#: The content type of a message that is an Arrow IPC stream.
ARROW = "application/vnd.apache.arrow.stream"
#: The first bytes of an IPC stream; JSON never begins with them.
_MAGIC = b"\xff\xff\xff\xff"


def is_arrow(body: bytes) -> bool:
    """Whether a message's body is an Arrow IPC stream, by its first bytes."""
    return body.startswith(_MAGIC)


class Counts(msgspec.Struct):
    """A message's result: what became of its rows. The numbers add up to the rows sent."""

    written: int = 0
    unchanged: int = 0
    #: Older than what is stored.
    stale: int = 0
    rejected: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Sum, number by number."""
        return Counts(
            *(a + b for a, b in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True))
        )


class Replayed(msgspec.Struct, frozen=True):
    """The letters that a message was made of: it carries them in a header."""

    task_id: str
    #: The letter of each row, or the one that holds the whole message.
    ids: tuple[Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)], ...]
    whole: bool
