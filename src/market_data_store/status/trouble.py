"""What keeps rows from being written although every part answers: held datasets, and workers that commit nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from market_data_store.coordinator.queue import WorkerAnswer

#: Seconds after which a worker that has messages and commits nothing is stalled.
STALLED_S = 30.0


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
    #: Seconds for which every worker has had messages and committed nothing.
    stalled_s: float = 0.0

    @property
    def sentences(self) -> list[str]:
        """What is wrong, if anything is, each in one line."""
        stalled = f"messages are at work, and nothing was committed for {self.stalled_s:.0f} s"
        held = [str(each) for each in self.held if each.reason]
        return held + ([stalled] if self.stalled_s > STALLED_S else [])


def trouble_of(waiting: Mapping[str, int], answers: Iterable[WorkerAnswer]) -> Trouble:
    """Combine how many messages wait for each dataset with what the workers answer."""
    answers = list(answers)
    known = {name: why for answer in answers for name, why in answer.held.items()}
    held = (HeldStatus(name, waiting.get(name, 0), *known.get(name, ())) for name in sorted({*waiting, *known}))
    return Trouble(tuple(held), min((answer.stalled_s for answer in answers), default=0.0))
