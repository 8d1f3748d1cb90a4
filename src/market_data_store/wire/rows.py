"""Reads a message's JSON rows, as far as one message can be read by itself, and checks them for producers.

In nearly all messages, all rows have one shape (the same field names). For each shape a msgspec Struct is built once,
with the producer's own field names, and the whole list is decoded in C. `columns` then types the values of many
messages at once. A message without a shape, or one that msgspec refuses, is read row by row by `reader`.

`StoreClient` checks rows by the same rules, without Arrow, so both report a mistake in the same words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage, Reason
from market_data_store.wire.fields import fields_of
from market_data_store.wire.reader import Reject, read_row, stored_defaults, with_unknown
from market_data_store.wire.reasons import shown
from market_data_store.wire.text import has_nul

#: Rows with more fields than this are decoded one by one, without a shape.
_MAX_SHAPE_FIELDS = 64
#: Celery's JSON writes datetimes, Decimals and the like as objects; their value is the text inside.
_WRAPPED = b'"__type__"'
_WRAPPER = re.compile(rb'\{"__type__": ?"(?:datetime|date|time|decimal|uuid)", ?"__value__": ?("(?:[^"\\]|\\.)*")\}')

_scan = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True, eq=False)
class SentRows:
    """A message's rows as they were sent, of JSON or of a table."""

    #: Stored values, by column, for fields that are missing or null.
    standard: Mapping[str, Any]
    #: Messages of one form are joined: a `Shape`, or an `arrow.TableForm`. None if the rows are read one by one.
    form: Hashable
    #: Structs of that shape, an Arrow table, or rows as `reader` reads them.
    content: Any
    #: Returns the rows at these positions as `reader` reads them.
    at: Callable[[Sequence[int]], list[Any]]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.content)


class Shape:
    """A decoder for lists of rows with the field names `names`, when `defaults` has values for `defaulted`."""

    def __init__(self, dataset: Dataset, names: frozenset[str], defaulted: frozenset[str]) -> None:
        members: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        #: For each column in rows of this shape, returns its value in a struct.
        self._getters: dict[str, Callable[[Any], Any]] = {}
        #: The same for each field that the dataset does not know but uses.
        self._unknown: dict[str, Callable[[Any], Any]] = {}

        def member(wire_name: str, type_: Any, default: Any = None) -> Callable[[Any], Any]:
            own = f"f{len(members)}"
            rename[own] = wire_name
            members.append((own, type_, default))
            return attrgetter(own)

        fields = fields_of(dataset)
        for f in fields:
            present = [name for name in f.names if name in names]
            if len(present) > 1:
                raise ValueError(f"{f.name} has several names")  # which of them has the value may differ by row
            optional = not f.required or f.name in defaulted
            if present:
                type_ = f.kind.column_wire or f.kind.wire
                made = (type_ | None, None) if optional else (type_, msgspec.NODEFAULT)
                self._getters[f.name] = member(present[0], *made)
            elif not optional:
                raise ValueError(f"{f.name} is missing")
        for name in sorted(names.difference(rename.values())):
            getter = member(name, Any if fields.use_unknown else msgspec.Raw)
            if fields.use_unknown:
                self._unknown[name] = getter
        struct = msgspec.defstruct("Row", members, rename=rename, kw_only=True, forbid_unknown_fields=True, gc=False)
        self.decode = msgspec.json.Decoder(list[struct], strict=False).decode  # type: ignore[valid-type]

    def joined(self, contents: Sequence[list[Any]]) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
        """Join lists of structs; returns values by column, and for each row the fields unknown to the dataset."""
        structs = list(chain.from_iterable(contents))
        columns = {name: list(map(getter, structs)) for name, getter in self._getters.items()}
        unknown = zip(*(map(getter, structs) for getter in self._unknown.values()), strict=True)
        return columns, [dict(zip(self._unknown, values, strict=True)) for values in unknown]


_shape = lru_cache(maxsize=256)(Shape)


def read_rows(dataset: Dataset, rows: bytes | list[Any], defaults: Mapping[str, Any]) -> SentRows:
    """Read the JSON text of a list of rows, or the list itself. `defaults` fills fields that are missing or null.

    Raises `InvalidMessage` when `rows` is not a list, or `defaults` is wrong for the dataset.
    """
    standard = stored_defaults(dataset, defaults)
    if isinstance(rows, bytes):
        text = _unwrapped(rows)
        shape, structs = _structs(dataset, text, standard)
        if shape is not None:
            return SentRows(standard, shape, structs, lambda positions: _picked(list(_split(text)), positions))
        rows = list(_split(text))
    listed = rows
    return SentRows(standard, None, listed, lambda positions: _picked(listed, positions))


def first_reject(dataset: Dataset, rows: bytes | list[Any], defaults: Mapping[str, Any]) -> Reject | None:
    """Return the first row that a worker would reject, without the use of Arrow; raises `InvalidMessage`."""
    given = read_rows(dataset, rows, defaults)
    if isinstance(given.form, Shape) and _passes(dataset, given.form, given.content):
        return None
    for position, raw in enumerate(given.at(range(len(given)))):
        found = read_row(dataset, position, raw, given.standard, 0)
        if isinstance(found, Reject):
            return found
    return None


def _passes(dataset: Dataset, shape: Shape, structs: list[Any]) -> bool:
    """Return whether all rows are valid; false if one must be read by itself."""
    columns, unknown = shape.joined([structs])
    try:
        for f in fields_of(dataset):
            values = columns.get(f.name)
            if f.rule.keeps_unknown:
                values = with_unknown(values, unknown, len(structs))
            present = [value for value in values or () if value is not None]
            if f.kind.column_wire is not None:
                present = msgspec.convert(present, list[f.kind.wire], strict=False)  # type: ignore[name-defined]
            f.kind.finish(present)
    except (ValueError, RecursionError):
        return False
    return True


def _picked(rows: list[Any], positions: Sequence[int]) -> list[Any]:
    return [rows[position] for position in positions]


def _structs(dataset: Dataset, text: bytes, standard: Mapping[str, Any]) -> tuple[Shape | None, list[Any]]:
    """Decode all rows at once; returns no shape if a row must be read by itself."""
    if has_nul(text):
        return None, []
    try:
        shape = _shape(dataset, _names_of_first_row(text), frozenset(standard))
        return shape, shape.decode(text)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None, []


def _names_of_first_row(text: bytes) -> frozenset[str]:
    start = text.find(b"{")
    if start < 0:
        raise ValueError("no object")
    # The scanner needs text, and most first rows are short: decode only the beginning of the message first.
    for size in (4_096, len(text)):
        try:
            first, _ = _scan(text[start : start + size].decode("utf-8", "ignore"))
            break
        except ValueError:
            if size >= len(text):
                raise
    if not isinstance(first, dict) or len(first) > _MAX_SHAPE_FIELDS:
        raise ValueError("no shape")
    return frozenset(first)


def _split(text: bytes) -> Iterator[Any]:
    """Yield the rows: as `msgspec.Raw`, or as objects if only Python's parser accepts the text (NaN, 1e400)."""
    try:
        yield from msgspec.json.decode(text, type=list[msgspec.Raw])
    except (ValueError, RecursionError):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidMessage(Reason.of("rows: not readable as JSON")) from error
        if not isinstance(rows, list):
            raise InvalidMessage(Reason.of("rows: expected a list of objects, got {}", shown(rows))) from None
        yield from rows


def _unwrapped(text: bytes) -> bytes:
    """Replace the objects that Celery's JSON writes for datetimes, Decimals and the like by their texts."""
    return _WRAPPER.sub(rb"\1", text) if _WRAPPED in text else text
