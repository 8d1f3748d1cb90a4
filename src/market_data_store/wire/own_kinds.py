"""The kinds that only users' own datasets have: exact numbers, lists of numbers, and JSON of any form."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from functools import cache
from typing import Any, Literal

import msgspec

from market_data_store.datasets import MAX_TEXT_LENGTH
from market_data_store.wire import arrow_casts
from market_data_store.wire.kind import Finish, Kind
from market_data_store.wire.moments import sendable
from market_data_store.wire.reasons import document_problem, exact_problem, json_problem, numbers_problem
from market_data_store.wire.text import has_nul, json_cell, list_cell

#: As for a single number, see `kinds`.
_LARGEST = 2.0**63
#: As Postgres writes it; a parser of JSON makes an integer of it, without the sign.
_NEGATIVE_ZERO = re.compile(r"(?<![eE])-0(?![0-9.eE])")
_DOCUMENT = msgspec.json.Decoder(dict[str, Any] | list[Any])
_NUMBERS = msgspec.json.Decoder(list[float | None], strict=False)


@cache
def numeric_kind(precision: int, scale: int) -> Kind:
    """Make the kind of numbers of at most `precision` digits, `scale` of them after the point: none is rounded."""
    return Kind(
        wire=Decimal,
        problem=exact_problem(precision, scale),
        copy_type="numeric",
        arrow_type=f"decimal128({precision}, {scale})",
        cast=arrow_casts.exact_numbers(precision, scale),
        digits=(precision, scale),
        finish=_exact(precision, scale),
        prepare=sendable,
        is_plain=False,
    )


def _exact(precision: int, scale: int) -> Finish:
    # Raises where a digit would be lost, before the point or after it.
    context = Context(prec=precision, traps=[Inexact, InvalidOperation])
    unit = Decimal(1).scaleb(-scale)

    def finish(column: list[Any]) -> list[Any]:
        try:
            found = [value.quantize(unit, context=context) for value in column]
        except DecimalException as error:
            raise ValueError("does not fit") from error
        if not all(map(Decimal.is_finite, found)):
            raise ValueError("not a finite number")
        return found

    return finish


@cache
def list_kind() -> Kind:
    """Make the kind of lists of doubles, in which null stands for no number. A text is the JSON of such a list."""
    return Kind(
        wire=list[float | None] | str,
        problem=numbers_problem,
        copy_type="float8[]",
        arrow_type="list<double>",
        cast=arrow_casts.number_lists,
        finish=_lists_of_numbers,
        from_csv=list_cell,
        export="to_json({0})",
        is_plain=False,
    )


def _lists_of_numbers(column: list[Any]) -> list[Any]:
    return [[_number(item) for item in _numbers_in(value)] for value in column]


def _numbers_in(value: Any) -> list[float | None]:
    return _NUMBERS.decode(_NEGATIVE_ZERO.sub("-0.0", value)) if isinstance(value, str) else list(value)


def _number(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    if abs(value) > _LARGEST:
        raise ValueError("beyond 64 bits")
    return value


@cache
def document_kind() -> Kind:
    """Make the kind of JSON objects and lists. A text is the JSON of one."""
    return Kind(
        wire=dict[str, Any] | list[Any] | str,
        problem=document_problem,
        copy_type="jsonb",
        arrow_type="string",
        cast=arrow_casts.unread,
        finish=_documents,
        from_csv=json_cell,
        is_plain=False,
    )


def _documents(column: list[Any]) -> list[Any]:
    # The same document has one text, so that a hash of a row's content can cover it.
    return _json_texts([_DOCUMENT.decode(value) if isinstance(value, str) else value for value in column], "sorted")


@cache
def metadata_kind() -> Kind:
    """Make the kind of the column that keeps what a dataset does not know: a JSON object."""
    return replace(
        document_kind(), wire=dict[str, Any], problem=json_problem, finish=lambda column: _json_texts(column, None)
    )


def _json_texts(column: list[Any], order: Literal["sorted"] | None) -> list[Any]:
    stored = [msgspec.json.encode(value, order=order) for value in column]
    if any(len(value) > MAX_TEXT_LENGTH or has_nul(value) for value in stored):
        raise ValueError("too long or with NUL")
    return [value.decode() for value in stored]
