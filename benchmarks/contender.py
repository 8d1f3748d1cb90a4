"""What every contender looks like to the one who lets them take turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.database import Database
from benchmarks.workloads import Workload


@dataclass(frozen=True, slots=True)
class Label:
    """What was measured; `broker` is empty where there is none."""

    contender: str
    broker: str = ""
    kind: str = "fresh"
    per_message: int = 500

    def __str__(self) -> str:
        if self == COPY:
            return self.contender
        parts = [self.contender, self.broker, self.kind, f"{self.per_message:,} a message" if self.broker else ""]
        return ", ".join(filter(None, parts))


#: The yardstick: 1.00.
COPY = Label("bare COPY")


@dataclass(frozen=True, slots=True)
class Timing:
    """What a run took."""

    rows: int
    seconds: float
    #: Besides: seconds to enqueue, seconds of CPU by process, ...
    facts: Mapping[str, float] = field(default_factory=dict)


class Contender(Protocol):
    """One way to get rows into Postgres."""

    @property
    def label(self) -> Label:
        """What it is called in the results."""

    def prepare(self) -> None:
        """Do all that the clock is not to see."""

    def run(self) -> Timing:
        """Write the rows; measured from the first one's start to the last one's commit."""


def fill(database: Database, workload: Workload) -> None:
    """Have the table hold what the workload expects, and nothing besides."""
    database.clear()
    database.store(workload.stored_before())
    database.settle()
