"""What is seen of fields that a dataset does not know: their names, and the kinds of their values.

A later migration may make a column of a name, so every value counts: the kinds are those that a column must be able to
hold. A row without such a field costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from market_data_store.datasets import Dataset
from market_data_store.wire.fields import is_not_finite, names_of

#: Of one dataset at most so many names are counted by themselves, in a process and in Postgres; the others together.
MOST_NAMES = 200
#: The name under which others are counted: beyond that number, too long, or such as Postgres cannot store.
OTHERS = "*"
_MAX_NAME = 128

TRUTH, INTEGER, LARGE, NUMBER, BEYOND, TEXT = (
    "true or false",
    "integer",
    "integer beyond 53 bits",
    "number",
    "number beyond 64 bits",
    "text",
)
TEXTS, NUMBERS, LIST, OBJECT = "list of texts", "list of numbers", "list", "object"
#: The kinds of columns, and what each holds, the narrowest first. A text holds an integer as its digits.
_COLUMNS = (
    ("boolean", frozenset({TRUTH})),
    ("bigint", frozenset({INTEGER, LARGE})),
    ("double", frozenset({INTEGER, NUMBER})),
    ("text", frozenset({TEXT, INTEGER, LARGE})),
    ("text[]", frozenset({TEXTS})),
    ("double[]", frozenset({NUMBERS})),
    ("jsonb", frozenset({TEXTS, NUMBERS, LIST, OBJECT})),
)
#: Up to so many names, all rows are searched for one name after the other, which takes a third of the time.
_FEW_NAMES = 32
#: Types whose values are neither NaN nor infinite.
_ALWAYS_FINITE = frozenset({bool, int, str, list, dict})
#: Integers up to this are exact as doubles too.
_EXACT = 2**53
_LARGEST = 2.0**63


@dataclass(slots=True)
class Seen:
    """What was seen of one name: in how many rows, and which kinds of values."""

    rows: int = 0
    kinds: set[str] = field(default_factory=set)

    def add(self, other: Seen) -> None:
        """Count what somebody else has seen, too."""
        self.rows += other.rows
        self.kinds |= other.kinds


def add_seen(counted: dict[str, Seen], seen: Mapping[str, Seen], most: int = MOST_NAMES) -> None:
    """Add what was seen to what is counted, of which at most `most` names are counted by themselves."""
    for name, each in seen.items():
        if name not in counted and (len(counted) >= most or not _is_countable(name)):
            counted.setdefault(OTHERS, Seen()).rows += each.rows
        else:
            counted.setdefault(name, Seen()).add(each)


class Sightings:
    """Counts the fields of rows that a dataset does not know."""

    def __init__(self, dataset: Dataset) -> None:
        self._known = names_of(dataset).known
        #: By name.
        self.seen: dict[str, Seen] = {}

    def note(self, rows: Iterable[Any]) -> None:
        """Count the fields of these rows that have a value; what is not an object has none."""
        objects = [row for row in rows if isinstance(row, dict)]
        seen: dict[str, Seen] = {}
        for name, values in _by_name(objects, set[str]().union(*objects) - self._known):
            if not _ALWAYS_FINITE.issuperset(map(type, values)):
                values = [value for value in values if not is_not_finite(value)]
            if values:
                seen[name] = Seen(len(values), kinds_of(values))
        add_seen(self.seen, seen)


def _by_name(objects: list[dict[str, Any]], names: set[str]) -> Iterable[tuple[str, list[Any]]]:
    """Return the values of these names in all objects, without null."""
    if len(names) <= _FEW_NAMES:
        return [(name, [value for each in objects if (value := each.get(name)) is not None]) for name in names]
    found: dict[str, list[Any]] = {}
    for each in objects:
        for name, value in each.items():
            if name in names and value is not None:
                found.setdefault(name, []).append(value)
    return found.items()


def kinds_of(values: list[Any]) -> set[str]:
    """Return the kinds of these values, none of which is null."""
    found: set[str] = set()
    for type_ in set(map(type, values)):
        kind = _KINDS.get(type_, BEYOND)
        found |= {kind} if isinstance(kind, str) else kind([value for value in values if type(value) is type_])
    return found


def column_kind(kinds: Collection[str]) -> str | None:
    """Return the kind of column that holds all values of these kinds as they are; None if there is none."""
    seen = frozenset(kinds)
    return next((kind for kind, holds in _COLUMNS if seen and seen <= holds), None)


def _integers(values: list[int]) -> set[str]:
    if max(-min(values), max(values)) <= _EXACT:
        return {INTEGER}
    return set(map(_integer, values))


def _integer(value: int) -> str:
    if abs(value) <= _EXACT:
        return INTEGER
    return LARGE if -(2**63) <= value < 2**63 else BEYOND


def _numbers(values: list[float]) -> set[str]:
    return {NUMBER} if max(map(abs, values)) <= _LARGEST else {NUMBER, BEYOND}


def _list(value: list[Any]) -> str:
    types = set(map(type, value))
    if types == {str}:
        return TEXTS
    numbers = [item for item in value if item is not None]
    if numbers and types <= {int, float, type(None)} and kinds_of(numbers) <= {INTEGER, NUMBER}:
        return NUMBERS
    return LIST


def _is_countable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return len(name) <= _MAX_NAME and "\0" not in name


def _each(kind: Callable[[Any], str], values: list[Any]) -> set[str]:
    return set(map(kind, values))


#: By the types that values have in Python. What is not here cannot be represented there, such as 1e400.
_KINDS: Mapping[type, str | Callable[[list[Any]], set[str]]] = {
    bool: TRUTH,
    int: _integers,
    float: _numbers,
    str: TEXT,
    list: partial(_each, _list),
    dict: OBJECT,
    msgspec.Raw: BEYOND,
}
