"""Whether the present version keeps up with the other one: samples, their pairing round by round, and the rule. Pure.

A ratio is the present version's value over the other's in the same round, so that what the machine does meanwhile hits
both; what counts is the median over the rounds. Two runs of the present version show how far that ratio goes by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

#: The contenders, besides the other version's commit.
PRESENT, AGAIN = "present", "present again"
#: By so much a drain may always be slower.
TOLERANCE = 0.05
#: Where two runs of one version differ by more than this, a verdict says little.
NOISY = 0.1


@dataclass(frozen=True, slots=True)
class Measure:
    """What is compared."""

    name: str
    #: Of its values: "rows/s" (more is better), else less is better.
    unit: str
    #: Most that the ratio may be where less is better; rows a second have the rule of `Comparison.limit` instead.
    most: float = 1.0

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit == "rows/s"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one contender in one round."""

    measure: Measure
    contender: str
    round: int
    value: float
    #: Noted besides: microseconds of CPU a row by process.
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measure over all rounds."""

    measure: Measure
    rounds: int
    #: Medians.
    present: float
    other: float
    #: Of the rounds' ratios present / other: median, least and most.
    ratio: float
    least: float
    highest: float
    #: Median ratio of the present version to itself.
    itself: float
    #: Medians of the facts by contender.
    facts: Mapping[str, Mapping[str, float]]

    @property
    def spread(self) -> float:
        """How far two runs of one version are apart: a share of the larger one, so that it is below 1."""
        return 1 - min(self.itself, 1 / self.itself)

    @property
    def limit(self) -> float:
        """Least ratio of rates, or most of costs, that holds."""
        return 1 - max(TOLERANCE, self.spread) if self.measure.is_rate else self.measure.most

    @property
    def holds(self) -> bool:
        """Whether the ratio is within the limit."""
        return self.ratio >= self.limit if self.measure.is_rate else self.ratio <= self.limit


def comparisons(samples: Sequence[Sample], other: str) -> list[Comparison]:
    """Each measure, in the order of its first sample; of rounds that have a sample of every contender."""
    found = []
    for measure in dict.fromkeys(sample.measure for sample in samples):
        own = [sample for sample in samples if sample.measure == measure]
        values = {name: {s.round: s.value for s in own if s.contender == name} for name in (other, PRESENT, AGAIN)}
        rounds = sorted(values[other].keys() & values[PRESENT].keys() & values[AGAIN].keys())
        if rounds:
            ratios = [values[PRESENT][number] / values[other][number] for number in rounds]
            found.append(
                Comparison(
                    measure,
                    len(rounds),
                    present=median(values[PRESENT][number] for number in rounds),
                    other=median(values[other][number] for number in rounds),
                    ratio=median(ratios),
                    least=min(ratios),
                    highest=max(ratios),
                    itself=median(values[AGAIN][number] / values[PRESENT][number] for number in rounds),
                    facts={name: _facts(own, name) for name in values},
                )
            )
    return found


def _facts(samples: Sequence[Sample], contender: str) -> dict[str, float]:
    own = [sample.facts for sample in samples if sample.contender == contender]
    names = dict.fromkeys(name for facts in own for name in facts)
    return {name: median(facts[name] for facts in own if name in facts) for name in names}
