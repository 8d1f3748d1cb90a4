"""The kinds of column: for each, how JSON, Arrow and CSV are read, what COPY gets, and how an export writes it.

`_KINDS` is the only table of kinds: a new kind is one entry there. A column of any other SQLAlchemy type raises a
`ConfigurationError`. Arrow casts a column of values if it can (`cast`), at a hundredth of the cost of reading them one
by one. Other columns are read by `wire` and `finish`, with the same results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, Numeric, Text
from sqlalchemy.dialects.postgresql import ARRAY, DATE, DOUBLE_PRECISION, JSONB

from market_data_store.datasets import MAX_KEY_LENGTH, MAX_TEXT_LENGTH, Rule
from market_data_store.errors import ConfigurationError
from market_data_store.wire import arrow_casts, moments
from market_data_store.wire.hashes import hash63
from market_data_store.wire.kind import Finish, Kind
from market_data_store.wire.own_kinds import document_kind, list_kind, metadata_kind, numeric_kind
from market_data_store.wire.reasons import (
    boolean_problem,
    date_problem,
    integer_problem,
    letters_problem,
    number_problem,
    small_integer_problem,
    text_problem,
    texts_problem,
    ts_problem,
)
from market_data_store.wire.text import list_cell, name_of

#: A number beyond 64 bits is a mistake in any field, even in one stored as double precision. NaN fails too.
_Number = Annotated[float, msgspec.Meta(ge=-(2.0**63), le=2.0**63)]
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
#: What a time or a date may be in JSON. Text to Arrow costs 0.5 us a value, text to datetime to Arrow 0.85.
_TIME = str | int | float
_IntegerOrId = _Integer | Annotated[str, msgspec.Meta(min_length=1)]

_CANONICAL_INTEGER = re.compile("0|-?[1-9][0-9]{0,18}")


def kind_of(column: Column[Any], time_unit: str | None = None) -> Kind:
    """Return the kind of a declared column, in a message whose times have this unit.

    Raises `ConfigurationError` for a type without a kind.
    """
    kind = _KINDS.get(type(column.type))
    if kind is None:
        known = ", ".join(sorted(type_.__name__ for type_ in _KINDS))
        raise ConfigurationError(f"{column}: columns of type {column.type!r} are not supported; use one of {known}")
    found = kind(column)
    return _in_unit(found, time_unit) if time_unit else found


def _text(column: Column[Any]) -> Kind:
    rule: Rule = column.info["rule"]
    limit = MAX_KEY_LENGTH if column.primary_key else MAX_TEXT_LENGTH
    text = Annotated[str, msgspec.Meta(min_length=1, max_length=limit)]
    kind = Kind(
        wire=text | int if rule.numbered else text,
        problem=text_problem(limit),
        copy_type="text",
        arrow_type="string",
        cast=arrow_casts.texts(limit, trimmed=rule.trimmed, numbered=rule.numbered),
        finish=_names if rule.trimmed else _finish_of(numbered=rule.numbered, nullable=bool(column.nullable)),
        prepare=_without_spaces if rule.trimmed else lambda value: value,
        is_text=True,
        from_hash=lambda value: f"{value:016x}",
    )
    if not rule.letters:
        return kind
    letters = rule.letters
    return replace(kind, finish=_letters(letters), problem=letters_problem(letters), cast=arrow_casts.unread)


def _bigint(column: Column[Any]) -> Kind:
    rule: Rule = column.info["rule"]
    kind = Kind(
        wire=_Integer,
        problem=integer_problem,
        copy_type="int8",
        arrow_type="int64",
        cast=arrow_casts.integers,
    )
    if not rule.content_hash:
        return kind
    return replace(kind, wire=_IntegerOrId, finish=_sequences, from_csv=_sequence_cell, is_text=True, loses=_loses)


def _integer(column: Column[Any]) -> Kind:
    rule: Rule = column.info["rule"]
    first, last = rule.within or (-(2**31), 2**31 - 1)
    return Kind(
        wire=Annotated[int, msgspec.Meta(ge=first, le=last)],
        problem=small_integer_problem(first, last),
        copy_type="int4",
        arrow_type="int32",
        cast=arrow_casts.small_integers(first, last),
    )


def _array(column: Column[Any]) -> Kind:
    item = column.type.item_type if isinstance(column.type, ARRAY) else None
    if isinstance(item, DOUBLE_PRECISION):
        return list_kind()
    if type(item) is not Text:
        raise ConfigurationError(f"{column}: only arrays of Text and of doubles are supported")
    return Kind(
        wire=list[str | int] | str,
        problem=texts_problem,
        copy_type="text[]",
        arrow_type="list<string>",
        cast=arrow_casts.unread,
        finish=_lists_of_texts,
        from_csv=list_cell,
        export="to_json({0})",  # CSV too: JSON, not Postgres's own form
        is_text=True,
        is_plain=False,
    )


def _without_spaces(value: Any) -> Any:
    return name_of(value) if isinstance(value, str) else value


def _names(column: list[Any]) -> list[Any]:
    # Names mostly repeat.
    names = {value: name_of(value) if isinstance(value, str) else str(value) for value in set(column)}
    if not all(names.values()):
        raise ValueError("empty")
    return [names[value] for value in column]


def _finish_of(*, numbered: bool, nullable: bool) -> Finish:
    if numbered:
        return lambda column: _filled([value if isinstance(value, str) else str(value) for value in column])
    return list if nullable else _filled


def _filled(column: list[Any]) -> list[Any]:
    if not all(map(name_of, column)):
        raise ValueError("blank")
    return column


def _lists_of_texts(column: list[Any]) -> list[Any]:
    lists = [[value] if isinstance(value, str) else list(map(str, value)) for value in column]
    # A text with half of a surrogate pair cannot be encoded.
    if any(len(text.encode()) > MAX_TEXT_LENGTH or "\0" in text for texts in lists for text in texts):
        raise ValueError("too long or with NUL")
    return lists


def _letters(letters: str) -> Finish:
    words = {"C": ("C", "CALL"), "P": ("P", "PUT")}
    stored = {word: letter for letter in letters for word in words[letter]}

    def finish(column: list[Any]) -> list[Any]:
        try:
            return [stored[name_of(value).upper()] for value in column]
        except KeyError as error:
            raise ValueError("unknown") from error

    return finish


def _sequences(column: list[Any]) -> list[Any]:
    return [_sequence(value) if isinstance(value, str) else value for value in column]


def _sequence(value: str) -> int:
    # A trade id of at most 18 digits is stored as that number; any other is hashed.
    if value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return hash63(value.encode())


def _loses(text: str) -> bool:
    return str(_sequence(text)) != text


def _sequence_cell(text: str) -> int | str:
    """Read a cell as an integer if it is one: as text, 19 digits or a negative number would be hashed as a trade id."""
    return int(text) if _CANONICAL_INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63 else text


def _in_unit(kind: Kind, unit: str) -> Kind:
    return {"timestamptz": _time(unit), "date": _date(unit)}.get(kind.copy_type, kind)


def _time(unit: str | None) -> Kind:
    return Kind(
        wire=_TIME,
        problem=ts_problem,
        copy_type="timestamptz",
        arrow_type="timestamp[us]",
        cast=arrow_casts.times(unit),
        finish=lambda values: moments.microseconds_of(values, unit),
        beyond=lambda values: moments.beyond_of(values, unit),
        prepare=moments.sendable,
        export="to_json({0}) #>> '{{}}'",  # ISO 8601 in CSV too, where Postgres writes `2024-01-02 14:30:00+00`
    )


def _date(unit: str | None) -> Kind:
    return Kind(
        wire=_TIME,
        problem=date_problem,
        copy_type="date",
        arrow_type="date32",
        cast=arrow_casts.dates,
        finish=lambda values: moments.days_of(values, unit),
        prepare=moments.sendable,
    )


def _numeric(column: Column[Any]) -> Kind:
    precision, scale = column.type.precision, column.type.scale  # type: ignore[attr-defined]
    if precision is None or scale is None:
        raise ConfigurationError(f"{column}: a numeric column needs precision and scale")
    return numeric_kind(precision, scale)


def _json(column: Column[Any]) -> Kind:
    rule: Rule = column.info["rule"]
    return metadata_kind() if rule.keeps_unknown else document_kind()


_DOUBLE = Kind(
    wire=_Number,
    problem=number_problem,
    copy_type="float8",
    arrow_type="float64",
    cast=arrow_casts.doubles,
    # Many readers, `mds load` among them, take JSON's -0 for an integer and lose its sign.
    export="CASE WHEN {0} = 0 AND {0}::text = '-0' THEN json '-0.0' ELSE to_json({0}) END",
    export_csv="CASE WHEN {0} = 0 AND {0}::text = '-0' THEN '-0.0' ELSE {0}::text END",
)
_BOOLEAN = Kind(
    wire=bool,
    problem=boolean_problem,
    copy_type="bool",
    arrow_type="bool",
    cast=arrow_casts.booleans,
    export="to_json({0})",  # CSV too, where Postgres writes t and f
)

_KINDS: Mapping[type, Callable[[Column[Any]], Kind]] = MappingProxyType(
    {
        Text: _text,
        BigInteger: _bigint,
        Integer: _integer,
        Boolean: lambda _: _BOOLEAN,
        ARRAY: _array,
        DOUBLE_PRECISION: lambda _: _DOUBLE,
        DateTime: lambda _: _time(None),
        DATE: lambda _: _date(None),
        Numeric: _numeric,
        JSONB: _json,
    }
)
