"""The interface of a contender, by which contenders take turns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.database import Database
from benchmarks.workloads import Workload


@dataclass(frozen=True, slots=True)
class Label:
    """Names what was measured; `broker` is empty if there is none."""

    contender: str
    broker: str = ""
    kind: str = "fresh"
    per_message: int = 500

    def __str__(self) -> str:
        if self == COPY:
            return self.contender
        parts = [self.contender, self.broker, self.kind, f"{self.per_message:,} a message" if self.broker else ""]
        return ", ".join(filter(None, parts))


#: The yardstick: its ratio is 1.00.
COPY = Label("bare COPY")
#: What the limit commits at once, as many rows as a worker merges, and over how many connections.
LIMIT_ROWS, LIMIT_CONNECTIONS = 5_000, os.cpu_count() or 1
#: No store can be faster on this machine.
LIMIT = Label(f"the limit: ready blocks, {LIMIT_ROWS:,} rows a commit, {LIMIT_CONNECTIONS} connections")


@dataclass(frozen=True, slots=True)
class Timing:
    """The time that a run took."""

    rows: int
    seconds: float
    #: Other figures: the rate of enqueueing, CPU time by process, ...
    facts: Mapping[str, float] = field(default_factory=dict)


class Contender(Protocol):
    """One way to get rows into Postgres."""

    @property
    def label(self) -> Label:
        """Its name in the results."""

    def prepare(self) -> None:
        """Do everything that must not be timed."""

    def run(self) -> Timing:
        """Write the rows; return the time from the start of the first one to the commit of the last one."""


def fill(database: Database, workload: Workload) -> None:
    """Fill the table with the rows that the workload expects, and no others."""
    database.clear()
    database.store(workload.stored_before())
    database.settle()
