"""The kinds of column that a declaration names, and the type in which Postgres stores each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, LiteralString

from sqlalchemy import BigInteger, Boolean, DateTime, Numeric, Text
from sqlalchemy.dialects.postgresql import ARRAY, DATE, DOUBLE_PRECISION, JSONB

#: The most digits of a numeric column: those of Arrow's decimal128.
MAX_DIGITS = 38
_NUMERIC = re.compile(r"numeric\( *([0-9]{1,4}) *, *([0-9]{1,4}) *\)")
#: Kinds that no key can have: their values are compared in no order that is the same everywhere, or are too large.
NOT_IN_KEYS = frozenset({"text[]", "double[]", "jsonb"})
#: Kinds whose values no hash of a row's content covers: they have several forms on their way.
NOT_HASHED = frozenset({"timestamptz", "date"})
#: Names sort bytewise, as Python sorts them, whatever the database's locale.
_TEXT = Text(collation="C")

#: All kinds but `numeric(precision, scale)`, with how their types are made.
_TYPES: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "text": lambda: _TEXT,
        "double": DOUBLE_PRECISION,
        "bigint": BigInteger,
        "boolean": Boolean,
        "timestamptz": lambda: DateTime(timezone=True),
        "date": DATE,
        "text[]": lambda: ARRAY(Text),
        "double[]": lambda: ARRAY(DOUBLE_PRECISION),
        "jsonb": JSONB,
    }
)
#: Their names in Postgres.
_IN_SQL: Mapping[str, LiteralString] = MappingProxyType(
    {
        "text": 'text COLLATE "C"',
        "double": "double precision",
        "bigint": "bigint",
        "boolean": "boolean",
        "timestamptz": "timestamp with time zone",
        "date": "date",
        "text[]": "text[]",
        "double[]": "double precision[]",
        "jsonb": "jsonb",
    }
)


def sql_type(kind: str) -> LiteralString:
    """Return Postgres's name of a kind without parameters; raises KeyError for another one."""
    return _IN_SQL[kind]


def type_of(kind: str) -> Any:
    """Return the type of a kind; raises ValueError, which says what is wrong and what to write."""
    make = _TYPES.get(kind)
    if make is not None:
        return make()
    found = _NUMERIC.fullmatch(kind)
    if found is None:
        known = ", ".join((*_TYPES, "numeric(precision,scale)"))
        raise ValueError(f"{kind[:80]!r} is not a kind; use one of {known}")
    precision, scale = map(int, found.groups())
    if not 1 <= precision <= MAX_DIGITS or scale > precision:
        raise ValueError(
            f"{kind!r}: the precision is the number of all digits, 1 to {MAX_DIGITS}, and the scale that of the "
            f"digits after the point, 0 to the precision; such as numeric({MAX_DIGITS},18)"
        )
    return Numeric(precision, scale)
