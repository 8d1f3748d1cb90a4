"""Puts the rows of messages in the order of their keys, as the tables' indexes have them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.datasets import ENQUEUED_AT, Dataset
from market_data_store.wire.columns import MESSAGE, POSITION, DecodedRows
from market_data_store.wire.fields import names_of
from market_data_store.wire.occurrences import hashed_field, renumbered
from market_data_store.wire.rows import SentRows


def in_key_order(decoded: DecodedRows, messages: Sequence[SentRows]) -> pa.RecordBatch:
    """Return the rows of messages in key order, of equal keys the oldest first.

    Equal rows of one message that have no id have got different keys.
    """
    dataset = decoded.dataset
    rows = _sorted(dataset, decoded.rows)
    if not names_of(dataset).numbered or len(rows) < 2:
        return rows
    distinct = differ(rows.slice(0, len(rows) - 1), rows.slice(1), (*dataset.key, MESSAGE))
    if pc.all(distinct).as_py():
        return rows
    place, made = hashed_field(dataset)
    ids = rows.column(place).to_pylist()
    origins = list(zip(rows.column(MESSAGE).to_pylist(), rows.column(POSITION).to_pylist(), strict=True))
    runs = _runs(distinct.to_pylist())
    found = renumbered(dataset, origins, runs, messages)
    if not found:
        return rows
    ids = pa.array([found.get(number, id_) for number, id_ in enumerate(ids)], rows.schema.types[place])
    return _sorted(dataset, rows.set_column(place, made.name, ids))


def _runs(distinct: Sequence[bool]) -> Iterator[list[int]]:
    """Yield the places of equal neighbours; `distinct` says of each row but the last whether its neighbour differs."""
    run = [0]
    for place, is_other in enumerate(chain(distinct, [True]), 1):
        if is_other and len(run) > 1:
            yield run
        if is_other:
            run = [place]
        else:
            run.append(place)


def _sorted(dataset: Dataset, rows: pa.RecordBatch) -> pa.RecordBatch:
    # Texts compare bytewise, as the key columns' COLLATE "C" does.
    names = (*dataset.key, ENQUEUED_AT, MESSAGE, POSITION)
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in names])
    return rows.take(order)


def differ(left: pa.RecordBatch, right: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    """Return for each row whether the two sides are distinct in one of the columns; null equals null."""
    distinct = None
    for name in names:
        one, other = left.column(name), right.column(name)
        if pa.types.is_list(one.type):  # Arrow does not compare lists
            one, other = (pa.array(map(json.dumps, column.to_pylist())) for column in (one, other))
        differs = pc.not_equal(one, other)
        if differs.null_count:
            differs = pc.coalesce(differs, pc.not_equal(one.is_null(), other.is_null()))
        distinct = differs if distinct is None else pc.or_(distinct, differs)
    return distinct
