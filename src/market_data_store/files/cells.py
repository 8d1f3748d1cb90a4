"""What a single cell of a file looks like: no value, a number, a time, or a text."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Texts that stand for no value in an optional field, in lower case; in a required one they reject the row.
NO_VALUES = frozenset(
    {"", "null", "nan", "+nan", "-nan", "n/a", "na", "#n/a", "#na", "none", "nil", "-", "--", ".", "nat", "<na>"}
    | {sign + word for sign in ("", "+", "-") for word in ("inf", "infinity")}
)
_NUMBER = re.compile(
    r"[$€£¥]?\s?[+-]?[$€£¥]?(?:\d{1,3}(?:[,.'\u2019 \u00a0\u202f]\d{3})+|\d+)?(?:[.,]\d*)?(?:[eE][+-]?\d+)?"
    r"\s?[KMBTkmbt%]?"
)
_NAME = re.compile(r"\d+ ?[A-Za-z]")
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = (
    rf"(?:\d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}|\d{{1,2}}[- /]?{_MONTH}[-, /]*\d{{2,4}}|\d{{4}}[- /]{_MONTH}[- /]\d+"
)
_DATE += rf"|{_MONTH}[- ]\d{{1,2}},? \d{{2,4}}|\d{{8}}|\d{{4}}-?(?:q[1-4]|w\d\d|\d\d)|\d{{4}}/\d\d)"
_CLOCK = r"\d{1,2}:\d\d(?::\d\d(?:[.,:]\d+)?)?"
_TIME = re.compile(
    rf"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?(?:{_DATE}(?:[t_, ;-]*(?:{_CLOCK}|\d{{4,6}}|\d\d?-?))?|{_CLOCK})"
    r"(?: ?[ap]\.?m\.?)?(?: ?(?:z|utc|gmt|[a-z]{2,4}|[a-z]+/[a-z_/]+))?(?: ?(?:gmt|utc)?[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)


def is_missing(text: str | None) -> bool:
    """Return whether a cell holds no value."""
    return text is None or text.strip().lower() in NO_VALUES


def is_number(text: str) -> bool:
    """Return whether a cell looks like a number, whatever its separators are."""
    stripped = text.strip()
    return any(c.isdigit() for c in stripped) and _NUMBER.fullmatch(stripped) is not None


def is_time(text: str) -> bool:
    """Return whether a cell looks like a date, a time of day, or both."""
    return _TIME.fullmatch(text.strip()) is not None


def is_value(text: str) -> bool:
    """Return whether a cell is not a name; 3M is one, of a column of yields."""
    stripped = text.strip()
    return (is_number(stripped) and not _NAME.fullmatch(stripped)) or is_time(stripped)


def share(cells: Iterable[str | None], test: object) -> float:
    """Return the share of cells with a value that meet the test; 0.0 if none has a value."""
    assert callable(test)  # noqa: S101
    given = [cell for cell in cells if cell is not None and not is_missing(cell)]
    return sum(map(bool, map(test, given))) / len(given) if given else 0.0
