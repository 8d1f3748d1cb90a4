"""What is said about a wrong value: field, value and remedy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from market_data_store.datasets import MAX_TEXT_LENGTH

#: Of a wrong value, so many characters stand in a reason.
_MAX_SHOWN = 80


def shown(value: Any) -> str:
    """The value as it stands in a reason."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}... ({len(text):,} characters)"


def number_problem(value: Any) -> str:
    """What is wrong with a number."""
    if isinstance(value, float | str) and _is_not_finite(value):
        return f"{shown(value)} is not a finite number"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{shown(value)} is beyond 64 bits"
    return f"{shown(value)} is not a number"


def _is_not_finite(value: float | str) -> bool:
    try:
        return not math.isfinite(float(value))
    except ValueError:
        return False


def integer_problem(value: Any) -> str:
    """What is wrong with an integer."""
    if isinstance(value, float | str) and _is_not_finite(value):
        return f"{shown(value)} is not a finite number"
    if isinstance(value, str) and value.lstrip("-").isdigit():
        return f"{shown(value)} is beyond 64 bits"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{shown(value)} is beyond 64 bits"
    return f"{shown(value)} is not an integer"


def ts_problem(value: Any) -> str:
    """What is wrong with a time."""
    return f"{shown(value)} is not a time from year 1 to 9999; send ISO 8601 or epoch seconds"


def date_problem(value: Any) -> str:
    """What is wrong with a date."""
    return f"{shown(value)} is not a date; send YYYY-MM-DD"


def text_problem(limit: int) -> Callable[[Any], str]:
    """Says what is wrong with a text of at most `limit` characters."""

    def problem(value: Any) -> str:
        if not isinstance(value, str):
            return f"{shown(value)} is not a string"
        if not value:
            return "'' is empty"
        if len(value) > limit:
            return f"{shown(value)} is too long, at most {limit:,} characters"
        if "\0" in value:
            return f"{shown(value)} holds a NUL character"
        return f"{shown(value)} is not valid Unicode"

    return problem


def letters_problem(letters: str) -> Callable[[Any], str]:
    """Says what is wrong with a value that must be one of these letters."""
    return lambda value: f"{shown(value)} is none of {', '.join(letters)}"


def json_problem(value: Any) -> str:
    """What is wrong with a row's metadata."""
    if not isinstance(value, dict):
        return f"{shown(value)} is not an object"
    return f"{shown(value)} is longer than {MAX_TEXT_LENGTH:,} bytes or holds a NUL character or a non-finite number"
