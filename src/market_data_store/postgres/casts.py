"""The types in which a column may be stored instead of the declared one, and how values get there unchanged.

A value fits if its cast to the column's type and back gives the same value. A conversion that depends on a setting of
the session, as between times with and without a time zone, is not one: it would not be the same value for everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from psycopg import sql

#: Postgres's names of the declared types, by those that COPY is given.
TYPE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "text": "text",
        "text[]": "text[]",
        "float8": "double precision",
        "float8[]": "double precision[]",
        "numeric": "numeric",
        "int8": "bigint",
        "int4": "integer",
        "bool": "boolean",
        "timestamptz": "timestamp with time zone",
        "date": "date",
        "jsonb": "jsonb",
    }
)


@dataclass(frozen=True, slots=True)
class StoredType:
    """A column's type in the table; that of a domain is the type under it."""

    #: As Postgres writes it, with its modifier.
    name: str
    #: Its name in pg_type; `enum` for every enumerated type.
    kind: str
    #: -1 without one.
    modifier: int
    #: Whether equal values are the same value; not so for texts of some collations.
    exact: bool = True

    @property
    def digits(self) -> tuple[int, int]:
        """The precision and the scale of a numeric type that has a modifier."""
        # As numeric.c packs them; the scale has 11 bits and a sign.
        return (self.modifier - 4) >> 16 & 0xFFFF, ((self.modifier - 4) & 0x7FF ^ 1024) - 1024

    def holds_digits(self, precision: int, scale: int) -> bool:
        """Whether it is a numeric type that holds all numbers of another one."""
        own_precision, own_scale = self.digits
        is_wide = own_scale >= scale and own_precision - own_scale >= precision - scale
        return self.kind == "numeric" and (self.modifier < 0 or is_wide)


@dataclass(frozen=True, slots=True)
class Cast:
    """How a column's values are stored in another type than the declared one."""

    declared: str
    stored: StoredType
    #: The cast of {value} to {type}; may raise if the guard does not hold.
    _store: str = "CAST({value} AS {type})"
    #: Holds for every {value} that fits.
    _guard: str = "true"
    #: What two {value}s of the stored type are compared by.
    _judged: str = "{value}"
    #: Whether no two values of the declared type are equal in the stored one, so that a key may have it.
    tells_apart: bool = True
    #: The SQLSTATE with which Postgres refuses such a value, where it does not change it silently.
    sqlstate: str = "22003"

    def store(self, value: sql.Composable) -> sql.Composed:
        """Return the value of the stored type; the value must fit."""
        return self._composed(self._store, value)

    def fits(self, value: sql.Composable) -> sql.Composed:
        """Return whether a value of the declared type comes back from the stored one."""
        template = "({value} IS NULL OR CASE WHEN {guard} THEN CAST({stored} AS {declared}) = {value} ELSE false END)"
        return sql.SQL(template).format(
            value=value,
            guard=self._composed(self._guard, value),
            stored=self.store(value),
            declared=sql.SQL(self.declared),
        )

    def judged(self, value: sql.Composable) -> sql.Composed:
        """Return that by which a value of the stored type is compared."""
        return self._composed(self._judged, value)

    def restored(self, value: sql.Composable) -> sql.Composed:
        """Return the value of the declared type for one of the stored type."""
        return sql.SQL("CAST({} AS {})").format(value, sql.SQL(self.declared))

    def _composed(self, template: str, value: sql.Composable) -> sql.Composed:
        # Postgres itself has quoted the type's name.
        return sql.SQL(template).format(value=value, type=sql.SQL(self.stored.name))


_Make = Callable[[str, StoredType], Cast]


def cast_of(declared: str, stored: StoredType) -> Cast | None:
    """Return how values of a declared type get into the stored one; None if there is no exact way for any of them."""
    make = _CASTS.get(declared, {}).get(stored.kind)
    return None if make is None else make(declared, stored)


def _plain(declared: str, stored: StoredType) -> Cast:
    return Cast(declared, stored)


def _rounded(declared: str, stored: StoredType) -> Cast:
    return Cast(declared, stored, sqlstate="22008")


def _to_text(declared: str, stored: StoredType) -> Cast:
    judged = "{value}" if stored.exact else '{value}::text COLLATE "C"'
    return Cast(declared, stored, _judged=judged, tells_apart=stored.exact, sqlstate="22001")


def _to_enum(declared: str, stored: StoredType) -> Cast:
    return Cast(declared, stored, _guard="{value} IN (SELECT unnest(enum_range(NULL::{type}))::text)", sqlstate="22P02")


def _to_json(declared: str, stored: StoredType) -> Cast:
    return Cast(declared, stored, _judged="{value}::jsonb")


def _to_numeric(declared: str, stored: StoredType) -> Cast:
    # By way of its text: Postgres casts a double to numeric by its first 15 digits.
    store = "CAST({value}::text AS {type})"
    if stored.modifier < 0:
        return Cast(declared, stored, store)
    precision, scale = stored.digits
    return Cast(
        declared, stored, store, f"abs(round({{value}}::text::numeric, {scale})) < 1e{precision - scale}::numeric"
    )


def _bounded(first: str, last: str, declared: str, stored: StoredType) -> Cast:
    return Cast(declared, stored, _guard=f"{{value}} BETWEEN {first} AND {last}")


def _double_to_real(declared: str, stored: StoredType) -> Cast:
    # The smallest and the largest one.
    guard = "({value} = 0 OR abs({value}) BETWEEN 1.401298464324817e-45::float8 AND 3.4028234663852886e38::float8)"
    return Cast(declared, stored, _guard=guard)


#: The last number is the largest double.
_int2 = partial(_bounded, "-32768", "32767")
_int4 = partial(_bounded, "-2147483648", "2147483647")
_int8 = partial(_bounded, "-9223372036854775808", "9223372036854774784")
#: The largest integers that a real and a double hold: above, the way back would be out of range.
_INTEGERS: Mapping[str, _Make] = {
    "numeric": _to_numeric,
    "float4": partial(_bounded, "-9223372036854775808", "9223371487098961920"),
    "float8": partial(_bounded, "-9223372036854775808", "9223372036854774784"),
}

#: By declared type and kind of the stored one.
_CASTS: Mapping[str, Mapping[str, _Make]] = MappingProxyType(
    {
        "text": {"text": _to_text, "varchar": _to_text, "bpchar": _to_text, "citext": _to_text, "enum": _to_enum},
        "text[]": {"_varchar": _to_text},
        "float8": {"float4": _double_to_real, "int2": _int2, "int4": _int4, "int8": _int8, "numeric": _to_numeric},
        "int8": {"int2": _int2, "int4": _int4, **_INTEGERS},
        "int4": {"int2": _int2, "int8": _plain, **_INTEGERS},
        "numeric": {"numeric": _to_numeric},
        "timestamptz": {"timestamptz": _rounded},
        "jsonb": {"json": _to_json},
    }
)
