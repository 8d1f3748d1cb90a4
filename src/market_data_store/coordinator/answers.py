"""What workers say of themselves, to whoever asks which queues they consume."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from kombu.exceptions import ContentDisallowed, DecodeError

from market_data_store.protocol import ANSWER

#: Seconds after which a worker that has messages and commits nothing is stalled, and one that takes no message although
#: some wait is deaf.
STALLED_S = 8.0
#: The most answers to one question that are read.
MOST_ANSWERS = 1_000
#: Maximum length of a worker's name, in characters.
_MAX_NAME = 255
#: What can be wrong with a worker.
TROUBLES = ("stalled", "deaf", "fallback")


class WorkerAnswer(msgspec.Struct, frozen=True):
    """What a worker says of itself."""

    #: The datasets that it holds: SQLSTATE and the first line of the reason.
    held: dict[str, tuple[str | None, str]]
    #: Seconds for which it has had messages and settled nothing.
    stalled_s: float
    #: Seconds for which messages have waited, it has had none, and none has come.
    deaf_s: float = 0.0
    #: Seconds since it settled a message; None if it has settled none.
    settled_s: float | None = None
    #: Why it uses Celery's own transport; None if it uses the store's.
    fallback: str | None = None
    #: Of the package; None of one before 0.5.
    version: str | None = None
    #: How many processes write.
    processes: int | None = None
    #: Its machine's time, in epoch seconds; None of one that does not say it.
    clock: float | None = None
    #: Tells it from other workers of its name, before it and beside it; seconds since its start.
    instance: str | None = None
    up_s: float | None = None
    #: Messages that it has not settled.
    holds: int | None = None
    #: Resident memory of all its processes; pages that they share count for each of them.
    rss_bytes: int | None = None
    #: What it has counted since its start, see `counted`; `counted.plausible` reads it.
    counted: Any = None

    def ahead_s(self, asked_at: float, read_at: float) -> float:
        """By how many seconds at least its clock is ahead, given this machine's time of the question and of reading.

        Negative if it is behind; 0 if it answered between the two.
        """
        clock = asked_at if self.clock is None else self.clock  # of one that does not say it
        return max(0.0, clock - read_at) + min(0.0, clock - asked_at)

    @property
    def troubles(self) -> frozenset[str]:
        """Which of `TROUBLES` it has."""
        has = (self.stalled_s > STALLED_S, self.deaf_s > STALLED_S, self.fallback is not None)
        return frozenset(name for name, is_so in zip(TROUBLES, has, strict=True) if is_so)


class FoundWorker(NamedTuple):
    """A live worker."""

    name: str
    #: The queues that it consumes.
    queues: tuple[str, ...]
    #: What it says of itself; None of one of an earlier version.
    answer: WorkerAnswer | None

    @property
    def trouble(self) -> str | None:
        """What is wrong with it, in one line; None if nothing is, or if it does not say."""
        if self.answer is None or not self.answer.troubles:
            return None
        texts = {
            "stalled": f"has had messages and committed none for {self.answer.stalled_s:.0f} s",
            "deaf": f"has taken no message for {self.answer.deaf_s:.0f} s, although some wait",
            "fallback": f"uses Celery's own transport: {self.answer.fallback}",
        }
        return "; ".join(text for name, text in texts.items() if name in self.answer.troubles)


def answers_in(message: Any, ticket: str) -> list[tuple[str, Any]]:
    """Return what workers answer to the question with this ticket; nothing for a message of another kind.

    Anybody can send to where the answers go.
    """
    try:
        reply = message.payload if message.headers.get("ticket") == ticket else None
    except (ContentDisallowed, DecodeError, ValueError, TypeError, RecursionError):
        return []
    named = reply.items() if isinstance(reply, dict) else ()
    return [(name, queues) for name, queues in named if len(name) <= _MAX_NAME]


def names_of(queues: Any) -> list[Any]:
    """Return the names of the queues that a worker lists; empty for a worker that answers with an error."""
    return [queue.get("name") for queue in queues if isinstance(queue, dict)] if isinstance(queues, list) else []


def answer_in(queues: Any) -> WorkerAnswer | None:
    """Return what a worker adds to its answer; None for one that adds nothing, such as one of an earlier version."""
    for queue in queues:
        if isinstance(queue, dict) and ANSWER in queue:
            try:
                return msgspec.convert(queue[ANSWER], WorkerAnswer)
            except msgspec.ValidationError:
                return None
    return None


def counted_troubles(answers: Iterable[WorkerAnswer]) -> dict[str, int]:
    """Count the workers that have each of `TROUBLES`."""
    answers = list(answers)
    return {name: sum(name in answer.troubles for answer in answers) for name in TROUBLES}
