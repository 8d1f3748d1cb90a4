"""How large an Arrow table becomes when its values are unfolded, found before they are.

A few bytes can stand for any number of values: nulls take none, and dictionaries, runs, views and unions refer to one
value many times. Compressed streams are refused as such (`arrow`).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.errors import InvalidMessage, Reason

#: The most columns of a table; what no field takes has to fit into 64 KiB of metadata.
_MOST_COLUMNS = 2_000
#: A table may take this many bytes when it is unfolded, or so many times its size.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_TIMES = 8
#: A value's place in a list of Python's, or in a column of numbers.
_PLACE = 8


def require_small(table: pa.Table, size: int) -> None:
    """Raise `InvalidMessage` if a table from a body of so many bytes has too many columns, or becomes too large."""
    if table.num_columns > _MOST_COLUMNS:
        numbers = f"{table.num_columns:,}", f"{_MOST_COLUMNS:,}"
        raise InvalidMessage(Reason.of("columns: {} columns, at most {}", *numbers))
    limit = max(_MOST_BYTES, _MOST_TIMES * size)
    unfolded = 0
    for name, column in zip(table.column_names, table.columns, strict=True):
        unfolded += sum(map(_size, column.chunks))
        if unfolded > limit:
            shown = name[:80], f"{size:,}"
            template = "{}: too many values are repeated or null for {} bytes; send smaller messages"
            raise InvalidMessage(Reason.of(template, *shown))


def _size(array: Any) -> int:
    """Return at least how many bytes the array's values take, each by itself."""
    type_, places = array.type, _PLACE * len(array)
    types = pa.types
    if types.is_dictionary(type_):
        if _has_lengths(type_.value_type):
            return places + _sum(pc.take(pc.binary_length(array.dictionary), array.indices))
        return places + len(array) * _largest(array.dictionary)
    if types.is_run_end_encoded(type_):
        return places + len(array) * _largest(array.values)
    if _has_lengths(type_):
        return places + _sum(pc.binary_length(array))
    if types.is_string_view(type_) or types.is_binary_view(type_):
        return places + _sum(pc.binary_length(array.cast(pa.large_binary())))
    if types.is_list_view(type_) or types.is_large_list_view(type_):
        return places + _sum(pc.list_value_length(array)) * (_PLACE + _largest(array.values))
    if types.is_union(type_):
        children = [array.field(number) for number in range(type_.num_fields)]
        if type_.mode == "sparse":
            return places + sum(map(_size, children))
        return places + len(array) * max(map(_largest, children), default=0)
    if types.is_map(type_):
        return places + _size(array.keys) + _size(array.items)
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return places + _size(array.values)
    if types.is_struct(type_):
        return places + sum(_size(array.field(number)) for number in range(type_.num_fields))
    if isinstance(type_, pa.BaseExtensionType):
        return places + _size(array.storage)
    if types.is_fixed_size_binary(type_) or types.is_decimal(type_):
        return places + len(array) * int(type_.byte_width)
    return places


def _largest(values: Any) -> int:
    """Return at least how many bytes the largest of these values takes."""
    if _has_lengths(values.type):
        return _PLACE + (pc.max(pc.binary_length(values)).as_py() or 0)
    return _PLACE if pa.types.is_primitive(values.type) else _size(values)


def _has_lengths(type_: Any) -> bool:
    types = pa.types
    return bool(
        types.is_string(type_) or types.is_large_string(type_) or types.is_binary(type_) or types.is_large_binary(type_)
    )


def _sum(numbers: Any) -> int:
    return int(pc.sum(numbers.cast(pa.int64())).as_py() or 0)
