"""What keeps rows from being written although every part answers: held datasets, and workers that commit nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from market_data_store.coordinator.answers import STALLED_S, WorkerAnswer, counted_troubles

#: Of workers in trouble, by `answers.TROUBLES`.
_TEXTS = {
    "stalled": "have had messages and committed none",
    "deaf": "have taken no message, although some wait,",
}


class HeldStatus(NamedTuple):
    """A dataset with held messages."""

    dataset: str
    messages: int
    sqlstate: str | None = None
    #: The first line of what Postgres said; None while its messages flow back, or before a worker has tried one.
    reason: str | None = None

    def __str__(self) -> str:
        """Return the dataset, its messages and the reason, in one line."""
        code = f" (SQLSTATE {self.sqlstate})" if self.sqlstate else ""
        why = f"is held: {self.reason}{code}" if self.reason else "is about to be tried or written again"
        return f"{self.dataset} {why}; {self.messages:,} messages wait for it"


class Trouble(NamedTuple):
    """What was found."""

    held: tuple[HeldStatus, ...] = ()
    #: Seconds for which a worker has had messages, or should have taken some, and no worker has committed anything.
    stalled_s: float = 0.0
    #: Of single workers, each in one line.
    workers: tuple[str, ...] = ()

    @property
    def held_sentences(self) -> list[str]:
        """The held datasets, each in one line."""
        return [str(each) for each in self.held if each.reason]

    @property
    def stalled(self) -> str | None:
        """That workers commit nothing, in one line; None if they do, or have nothing to commit."""
        if self.stalled_s <= STALLED_S:
            return None
        return f"messages are at work or wait, and nothing was committed for {self.stalled_s:.0f} s"

    @property
    def sentences(self) -> list[str]:
        """What keeps rows from being written, if anything does, each in one line."""
        return self.held_sentences + ([self.stalled] if self.stalled else [])


def trouble_of(
    waiting: Mapping[str, int], answers: Iterable[WorkerAnswer], namesakes: Mapping[str, int] = MappingProxyType({})
) -> Trouble:
    """Combine how many messages wait for each dataset, what the workers answer, and how many have the same name."""
    answers = list(answers)
    known = {name: why for answer in answers for name, why in answer.held.items()}
    held = (HeldStatus(name, waiting.get(name, 0), *known.get(name, ())) for name in sorted({*waiting, *known}))
    longest_s = max((max(answer.stalled_s, answer.deaf_s) for answer in answers), default=0.0)
    idle_s = min((answer.settled_s for answer in answers if answer.settled_s is not None), default=inf)
    return Trouble(tuple(held), min(longest_s, idle_s), (*_of_workers(answers), *_of_names(namesakes)))


def _of_workers(answers: Sequence[WorkerAnswer]) -> Iterator[str]:
    counted = counted_troubles(answers)
    for trouble, text in _TEXTS.items():
        if counted[trouble]:
            yield f"{counted[trouble]} of {len(answers)} workers {text} for more than {STALLED_S:.0f} s"
    for reason in sorted({answer.fallback for answer in answers if answer.fallback is not None}):
        of_them = sum(answer.fallback == reason for answer in answers)
        yield f"{of_them} of {len(answers)} workers use Celery's own transport: {reason}"


def _of_names(namesakes: Mapping[str, int]) -> Iterator[str]:
    for name, count in sorted(namesakes.items()):
        yield f"{count} workers have the name {name}; start each with a name of its own (-n)"
