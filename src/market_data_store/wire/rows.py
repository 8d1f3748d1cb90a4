"""Reads a message's JSON rows, as far as one message can be read by itself, and checks them for producers.

In nearly all messages, all rows have one shape (the same field names). For each shape a msgspec Struct is built once,
with the producer's own field names, and the whole list is decoded in C. `columns` then types the values of many
messages at once. A message without a shape, or one that msgspec refuses, is read row by row by `reader`.

`StoreClient` checks rows by the same rules, without Arrow, so both report a mistake in the same words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby
from operator import attrgetter
from typing import Any

import msgspec

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage, Reason
from market_data_store.wire.fields import Fields, exact_names, fields_of, names_of
from market_data_store.wire.hashes import OCCURRENCE, number_of
from market_data_store.wire.moments import TIME_UNIT, nanos_of
from market_data_store.wire.reader import Reject, read_row, stored_defaults
from market_data_store.wire.reasons import shown
from market_data_store.wire.sizes import MOST_ROWS, require_few, row_number
from market_data_store.wire.text import Unreadable, has_nul, read_float
from market_data_store.wire.unknown import Joined, unknown_flags, with_unknown

#: Rows with more fields than this are decoded one by one, without a shape.
_MAX_SHAPE_FIELDS = 64
#: The same for rows whose names have more characters: shapes are remembered.
_MAX_SHAPE_NAMES = 4_096
#: Celery's JSON writes datetimes, Decimals and the like as objects; their value is the text inside.
_WRAPPED = b'"__type__"'
_WRAPPER = re.compile(
    rb'\{"__type__": ?"(?:datetime|date|time|decimal|uuid)", ?"__value__": ?("[^"\\]*+(?:\\.[^"\\]*+)*+")\}'
)

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
        members: dict[str, tuple[str, Any, Any]] = {}
        self._fields = fields_of(dataset)
        meanings = names_of(dataset)
        #: For each column in rows of this shape, returns its value in a struct; of several values the first counts.
        self._getters: dict[str, list[Callable[[Any], Any]]] = {}
        #: The same for each field that is kept beside the columns, and for each that a hash counts as unknown.
        self._kept: dict[str, Callable[[Any], Any]] = {}
        self._hashed: dict[str, Callable[[Any], Any]] = {}
        #: The same for each field of which the column loses some texts.
        self._lossy: list[tuple[str, Callable[[str], bool], Callable[[Any], Any]]] = []

        def member(wire_name: str, type_: Any, default: Any = None) -> Callable[[Any], Any]:
            name, *_ = members.setdefault(wire_name, (f"f{len(members)}", type_, default))
            return attrgetter(name)

        for f in self._fields:
            present = [name for name in f.names if name in names]
            if not meanings.shared.issuperset(present[1:]):
                raise ValueError(f"{f.name} has several names")  # which of them has the value may differ by row
            optional = not f.required or f.name in defaulted
            if not present and not optional:
                raise ValueError(f"{f.name} is missing")
            for name in present:
                type_ = f.kind.wire
                made = (type_ | None, None) if optional else (type_, msgspec.NODEFAULT)
                # A hash counts the value as it was sent, and one that fits no guessed column is kept so.
                getter = member(name, *((Any, None) if meanings.hashed(name) or f.rule.guessed else made))
                self._getters.setdefault(f.name, []).append(getter)
                if f.kind.loses is not None and name not in meanings.shared:
                    self._lossy.append((name, f.kind.loses, getter))
        #: A row's number among its equals; only few rows have one.
        self._occurrence = member(OCCURRENCE, Any) if meanings.numbered else None
        for name in sorted(names - meanings.ignored):
            is_kept = self._fields.keep_unknown and name not in members
            is_hashed = meanings.hashed(name)
            getter = member(name, Any if is_kept or is_hashed else msgspec.Raw)
            if is_kept:
                self._kept[name] = getter
            if is_hashed:
                self._hashed[name] = getter
        for name in names & meanings.ignored:
            member(name, msgspec.Raw)
        rename = {own: wire_name for wire_name, (own, *_) in members.items()}
        struct = msgspec.defstruct(
            "Row", list(members.values()), rename=rename, kw_only=True, forbid_unknown_fields=True, gc=False
        )
        self.decode = msgspec.json.Decoder(list[struct], strict=False).decode  # type: ignore[valid-type]

    def joined(self, contents: Sequence[list[Any]]) -> Joined:
        """Join lists of structs."""
        structs = list(chain.from_iterable(contents))
        columns = {name: _first_values(getters, structs) for name, getters in self._getters.items()}
        kept = _dicts(self._kept, structs)
        for name, loses, getter in self._lossy:
            values = list(map(getter, structs))
            if str in set(map(type, values)):
                kept = kept or [{} for _ in structs]
                for extra, value in zip(kept, values, strict=True):
                    if isinstance(value, str) and loses(value):
                        extra[name] = value
        return Joined(columns, kept, lambda: self._hashed_fields(structs))

    def _hashed_fields(self, structs: list[Any]) -> list[dict[str, Any]]:
        rows = _dicts(self._hashed, structs)
        numbers = [] if self._occurrence is None else list(map(self._occurrence, structs))
        if any(number is not None for number in numbers):
            rows = rows or [{} for _ in structs]
            for row, number in zip(rows, numbers, strict=True):
                row[OCCURRENCE] = number_of(number)
        return rows


def _first_values(getters: list[Callable[[Any], Any]], structs: list[Any]) -> list[Any]:
    """Return for each struct the first value that is not None."""
    values = list(map(getters[0], structs))
    for getter in getters[1:]:
        others = map(getter, structs)
        values = [other if value is None else value for value, other in zip(values, others, strict=True)]
    return values


def _dicts(getters: Mapping[str, Callable[[Any], Any]], structs: list[Any]) -> list[dict[str, Any]]:
    """Return for each struct its values by name; an empty list without getters."""
    rows = zip(*(map(getter, structs) for getter in getters.values()), strict=True)
    return [dict(zip(getters, values, strict=True)) for values in rows]


_shape = lru_cache(maxsize=256)(Shape)


def read_rows(dataset: Dataset, rows: bytes | list[Any], defaults: Mapping[str, Any]) -> SentRows:
    """Read the JSON text of a list of rows, or the list itself. `defaults` fills fields that are missing or null.

    Raises `InvalidMessage` when `rows` is not a list, or `defaults` is wrong for the dataset.
    """
    standard = stored_defaults(dataset, defaults)
    if isinstance(rows, bytes):
        text = _unwrapped(rows)
        if text.count(b",") >= MOST_ROWS:
            require_few(row_number(text), len(text))
        shape, structs = _structs(dataset, text, standard)
        if shape is not None:
            return SentRows(standard, shape, structs, _reader(text, exact_names(dataset)))
        rows = list(_split(text, exact_names(dataset)))
    require_few(len(rows), 0)
    listed = rows
    return SentRows(standard, None, listed, lambda positions: _picked(listed, positions))


def _reader(text: bytes, exact: Collection[str]) -> Callable[[Sequence[int]], list[Any]]:
    """Return `SentRows.at` for this text, which is split once, and only if a row of it is refused."""
    rows: list[Any] = []

    def at(positions: Sequence[int]) -> list[Any]:
        if not rows:
            rows.extend(_split(text, exact))
        return _picked(rows, positions)

    return at


def rows_at(origins: Iterable[tuple[int, int]], messages: Sequence[SentRows]) -> dict[tuple[int, int], Any]:
    """Return the rows at these places (message, position) as they were sent; each message is read once."""
    found: dict[tuple[int, int], Any] = {}
    for index, group in groupby(sorted(origins), key=lambda origin: origin[0]):
        together = list(group)
        sent = messages[index].at([position for _, position in together])
        found.update(zip(together, sent, strict=True))
    return found


def first_reject(dataset: Dataset, rows: bytes | list[Any], defaults: Mapping[str, Any]) -> Reject | None:
    """Return the first row that a worker would reject, without the use of Arrow; raises `InvalidMessage`."""
    given = read_rows(dataset, rows, defaults)
    if isinstance(given.form, Shape) and _passes(dataset, given.form, given):
        return None
    for position, raw in enumerate(given.at(range(len(given)))):
        found = read_row(dataset, position, raw, given.standard, 0)
        if isinstance(found, Reject):
            return found
    return None


def _passes(dataset: Dataset, shape: Shape, rows: SentRows) -> bool:
    """Return whether all rows are valid; false if one must be read by itself."""
    joined = shape.joined([rows.content])
    fields = fields_of(dataset, rows.standard.get(TIME_UNIT))
    if _sends_nanos(fields, joined):
        return False  # they must agree with the times
    if dataset.unknown == "reject" and joined.kept and any(unknown_flags(dataset, joined.kept)):
        return False
    try:
        for f in fields:
            values = joined.columns.get(f.name)
            if f.rule.keeps_unknown:
                values = with_unknown(values, joined.kept, len(rows))
            present = [value for value in values or () if value is not None]
            if f.rule.later:
                present = msgspec.convert(present, list[f.kind.wire], strict=False)  # type: ignore[name-defined]
            f.kind.finish(present)
    except (ValueError, RecursionError):
        return False
    return True


def _sends_nanos(fields: Fields, joined: Joined) -> bool:
    names = {nanos_of(f.name) for f in fields if f.kind.copy_type == "timestamptz"}
    if any(names & kept.keys() for kept in joined.kept[:1]):
        return True
    return any(f.rule.nanos_of and f.name in joined.columns for f in fields)


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
    if not isinstance(first, dict) or len(first) > _MAX_SHAPE_FIELDS or sum(map(len, first)) > _MAX_SHAPE_NAMES:
        raise ValueError("no shape")
    return frozenset(first)


def _split(text: bytes, exact: Collection[str]) -> Iterator[Any]:
    """Yield the rows: as `msgspec.Raw`, or as objects if only Python's parser accepts the text (NaN, 1e400).

    In the latter the numbers of `exact` fields are texts.
    """
    try:
        yield from msgspec.json.decode(text, type=list[msgspec.Raw])
    except (ValueError, RecursionError):
        try:
            rows = json.loads(text, parse_float=read_float)
        except (ValueError, RecursionError) as error:
            raise InvalidMessage(Reason.of("rows: not readable as JSON")) from error
        if not isinstance(rows, list):
            raise InvalidMessage(Reason.of("rows: expected a list of objects, got {}", shown(rows))) from None
        written = json.loads(text, parse_float=str) if exact else rows
        yield from (with_digits(row, other, exact) for row, other in zip(rows, written, strict=True))


def with_digits(row: Any, written: Any, exact: Collection[str]) -> Any:
    """Return a row of Python's parser with the texts of its exact numbers; `written` is the row with those of all."""
    if not isinstance(row, dict):
        return row
    return row | {name: written[name] for name in exact if isinstance(row.get(name), float | Unreadable)}


def _unwrapped(text: bytes) -> bytes:
    """Replace the objects that Celery's JSON writes for datetimes, Decimals and the like by their texts."""
    return _WRAPPER.sub(rb"\1", text) if _WRAPPED in text else text
