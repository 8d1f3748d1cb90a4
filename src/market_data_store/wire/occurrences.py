"""Tells equal rows without an id apart: two equal trades of one call, message or file are two trades.

The first of them has the key that it would have alone, the n-th has n in the hash that makes its key (`hashes`). A
`StoreClient` counts over a call, whatever messages it becomes, and says so in their defaults (`OCCURRENCE`). A worker
counts the rows of other messages.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from market_data_store.datasets import Dataset
from market_data_store.wire.fields import Field, fields_of
from market_data_store.wire.hashes import OCCURRENCE, content_hashes
from market_data_store.wire.moments import TIME_UNIT
from market_data_store.wire.reader import Reject, ids_by_number, read_row
from market_data_store.wire.rows import SentRows, Shape, rows_at

#: The same for two rows only if they have the same key.
Key = Hashable


@cache
def hashed_field(dataset: Dataset) -> tuple[int, Field]:
    """Return the field of a numbered dataset that is made from a hash, and its place."""
    return next((place, f) for place, f in enumerate(fields_of(dataset)) if "*" in f.rule.content_hash)


def keys_of(dataset: Dataset, rows: SentRows) -> list[Key | None]:
    """Return the key of each row of a numbered dataset; None for a row that is rejected, or has an id or a number."""
    if isinstance(rows.form, Shape):
        try:
            return _keys_at_once(dataset, rows.form, rows.content, rows.standard)
        except (ValueError, RecursionError):
            pass
    raws = rows.at(range(len(rows)))
    return [_key_alone(dataset, position, raw, rows.standard) for position, raw in enumerate(raws)]


def _keys_at_once(dataset: Dataset, shape: Shape, structs: list[Any], standard: Mapping[str, Any]) -> list[Key | None]:
    joined = shape.joined([structs])
    _, made = hashed_field(dataset)
    ids: Sequence[Any] = joined.columns.get(made.name) or [None] * len(structs)
    if made.name in standard or None not in ids:
        return [None] * len(structs)
    fields = fields_of(dataset, standard.get(TIME_UNIT))
    columns = {
        f.name: _stored(f, joined.columns.get(f.name), standard.get(f.name), len(structs))
        for f in fields
        if f.name in made.rule.content_hash or (f.key and f.name != made.name)
    }
    hashed = joined.hashed()
    hashes = content_hashes(made.rule.content_hash, columns, hashed, len(structs))
    keys = zip(*(columns[f.name] for f in fields if f.key and f.name != made.name), hashes, strict=True)
    numbers = (row.get(OCCURRENCE) for row in hashed) if hashed else [None] * len(structs)
    return [
        key if id_ is None and number is None else None for key, id_, number in zip(keys, ids, numbers, strict=True)
    ]


def _stored(f: Field, values: list[Any] | None, default: Any, count: int) -> list[Any]:
    if values is None:
        return [default] * count
    present = [value for value in values if value is not None]
    stored = iter(f.kind.finish(present))
    return [default if value is None else next(stored) for value in values]


def _key_alone(dataset: Dataset, position: int, raw: Any, standard: Mapping[str, Any]) -> Key | None:
    place, _ = hashed_field(dataset)
    unnumbered = {name: value for name, value in standard.items() if name != OCCURRENCE}
    first = read_row(dataset, position, raw, unnumbered, 0)
    second = read_row(dataset, position, raw, unnumbered, 0, occurrence=2)
    if isinstance(first, Reject) or isinstance(second, Reject) or first[place] == second[place]:
        return None
    keys = len(dataset.key)
    return tuple(first[:keys])


def renumbered(
    dataset: Dataset,
    origins: Sequence[tuple[int, int]],
    runs: Iterator[Sequence[int]],
    messages: Sequence[SentRows],
) -> dict[int, int]:
    """Return new values of the hashed field for rows that equal an earlier row of their message, by place.

    `origins` are the rows' messages and positions there. Each of the `runs` has the places of
    rows with one key, of one message, in the order of their positions.
    """
    counted = [run for run in runs if OCCURRENCE not in messages[origins[run[0]][0]].standard]
    raws = rows_at([origins[place] for run in counted for place in run], messages)
    _, made = hashed_field(dataset)
    found: dict[int, int] = {}
    for run in counted:
        number = 0
        last: Any = None
        for place in run:
            raw, standard = raws[origins[place]], messages[origins[place][0]].standard
            if last is None or raw != last:
                ids_of = ids_by_number(dataset, made, raw, standard)
                last = raw
            if ids_of is None:  # its id was sent
                continue
            number += 1
            if number > 1:
                found[place] = int(ids_of(number))
    return found


def id_of(dataset: Dataset, raw: Any, standard: Mapping[str, Any], *, occurrence: int = 1) -> int:
    """Return the value of the hashed field of a valid row that is the n-th of its equals."""
    row = read_row(dataset, 0, raw, standard, 0, occurrence=occurrence)
    if isinstance(row, Reject):
        raise ValueError(row.reason)  # never: the row was valid before
    place, _ = hashed_field(dataset)
    return int(row[place])
