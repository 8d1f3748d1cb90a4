"""Summarizes runs: rates, ratios to the bare COPY of the same round, and medians over the rounds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.contender import COPY, Label, Timing


@dataclass(frozen=True, slots=True)
class Run:
    """One contender's turn."""

    label: Label
    round: int
    timing: Timing

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.timing.rows / self.timing.seconds


@dataclass(frozen=True, slots=True)
class Summary:
    """A contender's results over all rounds."""

    label: Label
    #: Rows per second, the median.
    rate: float
    #: Ratio to the bare COPY of the same round: median, least and most.
    ratio: float
    least: float
    most: float
    #: Medians of the other figures.
    facts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Latency:
    """The latency from `write()` to the commit, in milliseconds."""

    broker: str
    #: Share of the rate that producer and worker together sustain on this machine, and that rate in rows per second.
    load: float
    sustained: float
    p50_ms: float
    p99_ms: float
    rows: int


@dataclass(frozen=True, slots=True)
class Memory:
    """A process's resident memory in MB, early and at the end, with the rows stored by then."""

    process: str
    early_rows: int
    early_mb: float
    rows: int
    mb: float
    most_mb: float

    @property
    def growth(self) -> float:
        """The growth, as a share of the early figure."""
        return self.mb / self.early_mb - 1


@dataclass(slots=True)
class Results:
    """Everything that a benchmark measured. What was not measured is empty, and `skipped` has the reasons."""

    about: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    #: By the number of rows that were in the table already.
    growth: dict[int, list[Run]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def summaries(runs: Sequence[Run]) -> list[Summary]:
    """Summarize each contender, in the order of first turns; rounds without a yardstick do not count."""
    labels = list(dict.fromkeys(run.label for run in runs))
    found = []
    for label in labels:
        ratios = versus(runs, label, COPY)
        if ratios:
            own = [run for run in runs if run.label == label]
            facts = {
                name: median(run.timing.facts[name] for run in own if name in run.timing.facts)
                for name in dict.fromkeys(name for run in own for name in run.timing.facts)
            }
            rate = median(run.rate for run in own)
            found.append(Summary(label, rate, median(ratios), min(ratios), max(ratios), facts))
    return found


def versus(runs: Iterable[Run], one: Label, other: Label) -> list[float]:
    """Return the ratio of one's rate to the other's, for each round that has both."""
    runs = list(runs)
    ones, others = _by_round(runs, one), _by_round(runs, other)
    return [ones[number] / others[number] for number in sorted(ones.keys() & others.keys())]


def _by_round(runs: Iterable[Run], label: Label) -> dict[int, float]:
    """Return rows per second by round; with several turns in a round, as the yardstick has, their median."""
    rates: dict[int, list[float]] = {}
    for run in runs:
        if run.label == label:
            rates.setdefault(run.round, []).append(run.rate)
    return {number: median(found) for number, found in rates.items()}
