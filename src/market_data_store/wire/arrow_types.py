"""Arrow's types, by the names that `kinds` gives them."""

from __future__ import annotations

import re

import pyarrow as pa

_DECIMAL = re.compile(r"decimal128\(([0-9]+), ([0-9]+)\)")
_LIST = re.compile(r"list<(\w+)>")


def arrow_type(name: str) -> pa.DataType:
    """Return the type with this name."""
    if found := _DECIMAL.fullmatch(name):
        return pa.decimal128(*map(int, found.groups()))
    if found := _LIST.fullmatch(name):
        return pa.list_(pa.type_for_alias(found[1]))
    return pa.type_for_alias(name)
