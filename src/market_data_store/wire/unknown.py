"""What a row has beyond its dataset's fields: `metadata` keeps it, and hashes of a row's content cover it.

Both are made of fields as they were sent, under their own names. Three kinds of field are kept besides those that the
dataset does not know: a second name of a column, if its value is not the column's; a text that `seq` stores as a number
from which it could not be read back; and what neither JSON nor Arrow can represent in Python, as its text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from market_data_store.datasets import Dataset
from market_data_store.errors import Reason
from market_data_store.wire.fields import is_not_finite, names_of
from market_data_store.wire.hashes import OCCURRENCE, number_of
from market_data_store.wire.moments import nanos_of
from market_data_store.wire.reasons import WrongValue, shown, unknown_problem
from market_data_store.wire.text import Unreadable


@dataclass(frozen=True, slots=True)
class Joined:
    """The fields of several messages' rows as they were sent."""

    #: By field, the rows' values: a list, or an Arrow array.
    columns: Mapping[str, Any]
    #: For each row what `metadata` keeps; empty if no row has any such field.
    kept: Sequence[Mapping[str, Any]] = ()
    #: Returns for each row what a content hash counts as unknown; empty if no row has any such field. May raise
    #: ValueError.
    hashed: Callable[[], Sequence[Mapping[str, Any]]] = tuple


def hashed_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return these fields, of which a content hash counts each as unknown, as it counts them.

    Raises ValueError for a wrong number of a row among its equals.
    """
    hashed = {name: value for name, value in fields.items() if not isinstance(value, Unreadable)}
    if OCCURRENCE in hashed:
        hashed[OCCURRENCE] = number_of(hashed[OCCURRENCE])
    return hashed


def kept_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value, as JSON can hold them."""
    return {name: _readable(value) for name, value in fields.items() if value is not None and not is_not_finite(value)}


def _readable(value: Any) -> Any:
    if not isinstance(value, Unreadable):
        return value
    text = repr(value)
    return msgspec.Raw(text.encode()) if text.lstrip("-").isdigit() else text


def unknown_in(fields: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Return the names of the fields that have a value and are not known."""
    return [n for n, value in fields.items() if n not in known and value is not None and not is_not_finite(value)]


def require_known(dataset: Dataset, fields: Mapping[str, Any]) -> None:
    """Raise `WrongValue` if there are fields that have a value and that the dataset does not know."""
    if names := unknown_in(fields, names_of(dataset).known):
        raise WrongValue(unknown_problem(names, dataset.name))


def unknown_flags(dataset: Dataset, kept: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Return for each row, by what is kept of it, whether it has a field that the dataset does not know."""
    known = names_of(dataset).known
    return [bool(unknown_in(fields, known)) for fields in kept]


def with_nanos(
    column: list[Any] | None,
    kept: Sequence[Mapping[str, Any]],
    count: int,
    beyond: Mapping[str, Sequence[int | None]],
) -> Sequence[Mapping[str, Any]]:
    """Add to what is kept of each row the nanoseconds of fields that no column takes, under the names of `nanos_of`.

    `column` has each row's own metadata. Raises `WrongValue` if a row sends others under such a name.
    """
    if not beyond:
        return kept
    merged = [dict(extra) for extra in kept] or [{} for _ in range(count)]
    for field, each in beyond.items():
        name = nanos_of(field)
        for extra, own, nanos in zip(merged, column or [None] * count, each, strict=True):
            if nanos is not None:
                sent = own.get(name) if isinstance(own, Mapping) else None
                require_equal(name, extra.get(name) if sent is None else sent, field, nanos)
                extra[name] = nanos
    return merged


def require_equal(name: str, sent: Any, field: str, nanos: int) -> None:
    """Raise `WrongValue` if nanoseconds were sent that differ from those of the field."""
    if sent not in (None, nanos):
        reason = Reason.of("{} differs from the nanoseconds of {field}, {}", shown(sent), str(nanos), field=field)
        raise WrongValue(reason.at(name))


def with_unknown(column: list[Any] | None, unknown: Sequence[Mapping[str, Any]], count: int) -> list[Any] | None:
    """Add to each row's metadata what else is kept of it; None for a row without either."""
    if not unknown:
        return column
    merged: list[Any] = []
    for extra, own in zip(unknown, column or [None] * count, strict=True):
        kept = {k: v for k, v in extra.items() if v is not None}
        if own is None:
            merged.append(kept or None)
        else:
            merged.append({**kept, **own} if isinstance(own, Mapping) else own)  # its own fields win
    return merged
