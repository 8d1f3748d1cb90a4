"""Decodes an Arrow table column by column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from market_data_store.datasets import Dataset
from market_data_store.wire.arrow import NO_VALUE, Frame, as_json, pyarrow_module, python_values
from market_data_store.wire.columns import DecodedRows, completed, finished, stored_defaults, with_unknown
from market_data_store.wire.fields import Field, fields_of
from market_data_store.wire.rows import decode_rows


def decode_frame(dataset: Dataset, frame: Frame, defaults: Mapping[str, Any], enqueued_at: int) -> DecodedRows:
    """Type and check a table's rows, with the same results as `rows.decode_rows`."""
    standard = stored_defaults(dataset, defaults)
    try:
        return DecodedRows(dataset, _columns(dataset, frame.table, standard, enqueued_at), range(len(frame)))
    except (pyarrow_module().ArrowException, *NO_VALUE, RecursionError):
        return decode_rows(dataset, frame.objects(), defaults, enqueued_at)


def _columns(dataset: Dataset, table: Any, standard: Mapping[str, Any], enqueued_at: int) -> list[list[Any]]:
    """Return stored values by column; raises ValueError, TypeError or Arrow's error if a row must be read by itself."""
    fields = fields_of(dataset)
    names = set(table.column_names)
    known = {name for f in fields for name in f.names}
    unknown: list[dict[str, Any]] = []
    if fields.use_unknown and (others := [name for name in table.column_names if name not in known]):
        unknown = Frame(table.select(others)).objects()
        if any(f.rule.keeps_unknown for f in fields):
            json.dumps(unknown, allow_nan=False)
    stored: list[list[Any] | None] = []
    for f in fields:
        present = [name for name in f.names if name in names]
        if len(present) > 1:
            raise ValueError(f"{f.name} has several names")  # which of them has the value may differ by row
        column = table.column(present[0]) if present else None
        if f.rule.keeps_unknown:
            own = (
                None
                if column is None
                else [None if v is None else f.checked(as_json(v)) for v in python_values(column)]
            )
            whole = with_unknown(own, unknown, table.num_rows)
            values = None if whole is None else finished(f, whole)
        else:
            values = None if column is None else _stored(f, column)
        if f.required and f.name not in standard and (values is None or None in values):
            raise ValueError(f"{f.name} is missing")
        stored.append(values)
    return completed(dataset, stored, unknown, standard, enqueued_at, table.num_rows)


def _stored(f: Field, column: Any) -> list[Any]:
    """Return a column's values as they are stored; None stays None."""
    values = f.kind.from_arrow(column)
    if values is not None:
        return values
    types = pyarrow_module().types
    if types.is_string(column.type) or types.is_large_string(column.type) or types.is_dictionary(column.type):
        return _by_distinct_value(f, column)
    return finished(f, [None if value is None else f.checked(as_json(value)) for value in python_values(column)])


def _by_distinct_value(f: Field, column: Any) -> list[Any]:
    """Return a column's stored values, checking each distinct text only once: most texts repeat."""
    whole = column.combine_chunks()
    encoded = whole if pyarrow_module().types.is_dictionary(whole.type) else whole.dictionary_encode()
    distinct = python_values(encoded.dictionary)
    stored = [*finished(f, [None if value is None else f.checked(value) for value in distinct]), None]
    return [stored[index] for index in encoded.indices.fill_null(-1).to_pylist()]
