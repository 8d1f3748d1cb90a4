"""The reasons why values are wrong: each names the value and the remedy, and has a pattern without the value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from market_data_store.datasets import MAX_TEXT_LENGTH
from market_data_store.errors import Reason
from market_data_store.wire.text import name_of

#: Maximum number of characters of a value in a reason.
_MAX_SHOWN = 80
#: Of names at most so many.
_MOST_NAMED = 10


class WrongValue(ValueError):
    """A row has a value that its dataset does not accept."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


def reason_of(error: ValueError) -> Reason:
    """Return the reason for an error that decoding raised."""
    if isinstance(error, WrongValue):
        return error.reason
    # A library raised it: its text may quote the row.
    return Reason(str(error), "the value cannot be decoded")


def shown(value: Any) -> str:
    """Return the value as a reason quotes it, shortened to 80 characters."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}... ({len(text):,} characters)"


def number_problem(value: Any) -> Reason:
    """Say what is wrong with a number."""
    if isinstance(value, float | str) and _is_not_finite(value):
        return Reason.of("{} is not a finite number", shown(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Reason.of("{} is beyond 64 bits", shown(value))
    return Reason.of("{} is not a number", shown(value))


def _is_not_finite(value: float | str) -> bool:
    try:
        return not math.isfinite(float(value))
    except ValueError:
        return False


def integer_problem(value: Any) -> Reason:
    """Say what is wrong with an integer."""
    if isinstance(value, float | str) and _is_not_finite(value):
        return Reason.of("{} is not a finite number", shown(value))
    if isinstance(value, str) and value.lstrip("-").isdigit():
        return Reason.of("{} is beyond 64 bits", shown(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return Reason.of("{} is beyond 64 bits", shown(value))
    return Reason.of("{} is not an integer", shown(value))


def small_integer_problem(first: int, last: int) -> Callable[[Any], Reason]:
    """Make a function that says what is wrong with an integer between these two."""

    def problem(value: Any) -> Reason:
        template = "{} is not an integer from {first} to {last}"
        return Reason.of(template, shown(value), first=str(first), last=str(last))

    return problem


def boolean_problem(value: Any) -> Reason:
    """Say what is wrong with a truth value."""
    return Reason.of("{} is not true or false", shown(value))


def texts_problem(value: Any) -> Reason:
    """Say what is wrong with a list of texts."""
    template = "{} is not a list of texts, or too long, or holds a NUL character; send a JSON list of strings"
    return Reason.of(template, shown(value))


def exact_problem(precision: int, scale: int) -> Callable[[Any], Reason]:
    """Make a function that says what is wrong with a number of so many digits, and so many after the point."""

    def problem(value: Any) -> Reason:
        try:
            number = Decimal(str(value))
        except InvalidOperation:  # booleans too
            return Reason.of("{} is not a number", shown(value))
        if not number.is_finite():
            return Reason.of("{} is not a finite number", shown(value))
        template = "{} does not fit numeric({precision},{scale}): {before} digits before the point, {scale} after it"
        return Reason.of(template, shown(value), precision=precision, scale=scale, before=precision - scale)

    return problem


def numbers_problem(value: Any) -> Reason:
    """Say what is wrong with a list of numbers."""
    template = "{} is not a list of numbers of at most 64 bits; send a JSON list such as [1.5, 2]"
    return Reason.of(template, shown(value))


def document_problem(value: Any) -> Reason:
    """Say what is wrong with JSON of any form."""
    if not isinstance(value, dict | list | str):
        return Reason.of("{} is not an object or a list", shown(value))
    return Reason.of(
        "{} is not the JSON of an object or a list, is longer than {limit:,} bytes, or holds a NUL character or a "
        "non-finite number",
        shown(value),
        limit=MAX_TEXT_LENGTH,
    )


def ts_problem(value: Any) -> Reason:
    """Say what is wrong with a time."""
    return Reason.of("{} is not a time; send ISO 8601, or a number of s, ms, us or ns since 1970", shown(value))


def date_problem(value: Any) -> Reason:
    """Say what is wrong with a date."""
    return Reason.of("{} is not a date; send YYYY-MM-DD or YYYYMMDD", shown(value))


def occurrence_problem(value: Any) -> Reason:
    """Say what is wrong with a row's number among its equals."""
    return Reason.of("{} is not a positive integer", shown(value))


def text_problem(limit: int) -> Callable[[Any], Reason]:
    """Make a function that says what is wrong with a text of at most `limit` characters."""

    def problem(value: Any) -> Reason:
        if not isinstance(value, str):
            return Reason.of("{} is not a string", shown(value))
        if not name_of(value):
            return Reason.of("{} is empty", shown(value))
        if len(value) > limit:
            return Reason.of("{} is too long; send at most {limit:,} characters", shown(value), limit=limit)
        if "\0" in value:
            return Reason.of("{} holds a NUL character", shown(value))
        return Reason.of("{} is not valid Unicode", shown(value))

    return problem


def letters_problem(letters: str) -> Callable[[Any], Reason]:
    """Make a function that says what is wrong with a value that must be one of these letters."""
    return lambda value: Reason.of("{} is not one of {known}", shown(value), known=", ".join(letters))


def json_problem(value: Any) -> Reason:
    """Say what is wrong with a row's metadata."""
    if not isinstance(value, dict):
        return Reason.of("{} is not an object", shown(value))
    return Reason.of(
        "{} is longer than {limit:,} bytes or holds a NUL character or a non-finite number",
        shown(value),
        limit=MAX_TEXT_LENGTH,
    )


def unknown_problem(names: Sequence[str], dataset: str) -> Reason:
    """Say that the dataset does not know these fields, and takes no row with such."""
    named = ", ".join(shown(name) for name in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    template = (
        '{dataset} does not know {}, and its contract is unknown = "reject"; remove or rename what is not a field '
        "(`mds datasets {dataset}` lists the fields), or declare a column"
    )
    return Reason.of(template, f"{named}{more}", dataset=dataset).at("row")


def unfit_problem(value: Any, table: str, type_: str) -> Reason:
    """Say that a value would not be the same after it was stored in a column of this type."""
    moment = value.isoformat() if isinstance(value, datetime) else value
    template = "{} cannot be stored as {type} without a change; it would need another type in {table}"
    return Reason.of(template, shown(moment), type=type_, table=table)
