"""JSON text: rows as dead letters keep them, single values, and the NUL character, which Postgres cannot store."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

#: NUL as JSON writes it, after an even number of backslashes; Postgres accepts it in no text.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*+\\u0000")

#: What is removed around names: all whitespace of Unicode, the no-break kinds included, and the spaces without width
#: (U+200B, U+2060, U+FEFF), which Python does not count as whitespace.
SPACES = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff"
)


def name_of(text: str) -> str:
    """Return a name without the whitespace around it."""
    return text.strip(SPACES)


class TableRow(dict[str, Any]):
    """A row of a table, as JSON has it.

    `cut` has those of its times that have nanoseconds, to the microsecond: as version 0.4 read and hashed them.
    """

    cut: Mapping[str, str] = MappingProxyType({})


class Unreadable:
    """A value that JSON or Arrow allows and Python does not, such as an integer of 5,000 digits; no field takes it."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text.decode("utf-8", "replace")


def read_float(text: str) -> Any:
    """Read a number of JSON; one beyond all doubles, such as 1e400, is `Unreadable`, not an infinity."""
    value = float(text)
    return value if math.isfinite(value) else Unreadable(text.encode())


def row_text(row: Any) -> str:
    """Return the row as JSON text that Postgres's json accepts; only NaN and infinities change, to strings."""
    if isinstance(row, msgspec.Raw):
        return bytes(row).decode("utf-8", "replace")
    try:
        return json.dumps(row, allow_nan=False, default=str)
    except ValueError:
        try:
            return json.dumps(_without_nan(row), default=str)
        except RecursionError:
            return json.dumps(json.dumps(row, default=str))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value


def has_nul(text: bytes) -> bool:
    """Return whether JSON text holds a NUL character."""
    return b"\\u0000" in text and _NUL.search(text) is not None


def json_cell(text: str) -> Any:
    """Return JSON text undecoded; text that is not JSON (such as NaN) stays a text, which the worker rejects."""
    return msgspec.Raw(text.strip().encode()) if not isinstance(python_value(text), str) else text.strip()


def with_number(row: str, name: str, number: int) -> str:
    """Return a row, the JSON text of an object, with one more field, in front of the others."""
    inside = row.strip()[1:]
    return f'{{"{name}":{number}{"" if inside.lstrip() == "}" else ","}{inside}'


def list_cell(text: str) -> Any:
    """Return a JSON list undecoded; any other text stays a text, of which the list then consists."""
    return msgspec.Raw(text.strip().encode()) if isinstance(python_value(text), list) else text.strip()


def python_value(text: str) -> Any:
    """Return JSON text as a Python object; text that is not JSON is returned as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()
