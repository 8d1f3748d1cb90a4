"""What workers have counted: the form in which one says it, and sums and differences of it.

Counts are a flat object, so that versions of workers may differ in what they count. A key is `family|label|part`, as
`rows|bars|written`, `retries||40`, or of a histogram the number of the bucket, `write_s|bars|3`, and
`write_s|bars|sum`.
They only grow while a worker lives.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Any

#: Counts by key.
Counted = dict[str, float]

#: What becomes of rows.
OUTCOMES = ("written", "unchanged", "stale", "superseded", "rejected")
#: Upper bounds of the buckets of each histogram; a last bucket takes what is more. Seconds, and rows of `batch_rows`.
BOUNDS: Mapping[str, tuple[float, ...]] = {
    # From when a message of the live lane was enqueued to the commit of its rows.
    "latency_s": (
        *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5),
        *(10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0),
    ),
    "batch_rows": (1, 10, 50, 100, 500, 1_000, 2_500, 5_000, 10_000),
    "write_s": (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    "stale_s": (0.1, 1, 2, 5, 10, 30, 60, 300, 900, 3_600, 4 * 3_600, 24 * 3_600, 7 * 24 * 3_600),
}
#: The label of rows without a dataset, and of errors without an SQLSTATE.
NONE = "none"
#: The label that takes the place of those above `_MOST_LABELS`.
OTHERS = "others"

_KEY = re.compile(r"(rows|retries|latency_s|batch_rows|write_s|stale_s)\|\w{0,32}\|\w{1,16}")
#: The most keys of one worker, and the most labels (datasets) of a sum.
_MOST_KEYS = 2_000
_MOST_LABELS = 100
#: Larger numbers no worker can have counted.
_MOST = 2.0**53


def key(family: str, label: str, part: object) -> str:
    """Return the key of a count."""
    return f"{family}|{label}|{part}"


def parts_of(counted: Mapping[str, float], family: str) -> Iterator[tuple[str, str, float]]:
    """Yield label, part and number of each count of a family."""
    for name, number in counted.items():
        kind, label, part = name.split("|")
        if kind == family:
            yield label, part, number


def add(total: Counted, more: Mapping[str, float]) -> None:
    """Add to a total."""
    for name, number in more.items():
        total[name] = total.get(name, 0) + number


def observe(total: Counted, family: str, label: str, values: Iterable[float]) -> None:
    """Count values in the buckets of a histogram."""
    bounds = BOUNDS[family]
    for value in values:
        add(total, {key(family, label, bisect_left(bounds, value)): 1, key(family, label, "sum"): max(value, 0.0)})


def since(now: Mapping[str, float], before: Mapping[str, float]) -> Counted:
    """Return what was counted between two moments of one worker."""
    return {name: number - before.get(name, 0) for name, number in now.items() if number > before.get(name, 0)}


def plausible(said: Any) -> Counted | None:
    """Return what a worker says, without what cannot be a count; None of one that says nothing.

    Anybody can send to where the answers go.
    """
    if not isinstance(said, dict) or len(said) > _MOST_KEYS:
        return None
    return {
        name: number
        for name, number in said.items()
        if isinstance(name, str)
        and _KEY.fullmatch(name)
        and isinstance(number, int | float)
        and isfinite(number)
        and 0 <= number < _MOST
    }


def bounded(counted: Mapping[str, float], known: set[str]) -> Counted:
    """Return the counts with labels that are in `known`, which grows up to a bound; the other labels are `others`."""
    found: Counted = {}
    for name, number in counted.items():
        family, label, part = name.split("|")
        if label and label not in known:
            if len(known) < _MOST_LABELS:
                known.add(label)
            else:
                label = OTHERS
        add(found, {key(family, label, part): number})
    return found


def buckets(counted: Mapping[str, float], family: str, label: str = "") -> list[float]:
    """Return the numbers of a histogram's buckets, the last of which has no upper bound."""
    length = len(BOUNDS[family])
    return [counted.get(key(family, label, place), 0) for place in range(length + 1)]


def quantile(counted: Mapping[str, float], family: str, share: float) -> float | None:
    """Estimate the value below which this share of the values lies; None without any.

    It is interpolated within a bucket. What is above the last bound counts as the last bound.
    """
    numbers, bounds = buckets(counted, family), BOUNDS[family]
    rank = share * sum(numbers)
    if not rank:
        return None
    below = 0.0
    for place, number in enumerate(numbers[:-1]):
        if number and below + number >= rank:
            least = bounds[place - 1] if place else 0.0
            return least + (bounds[place] - least) * (rank - below) / number
        below += number
    return bounds[-1]
