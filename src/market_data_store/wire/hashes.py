"""Hashes of a row's content, used as key values, so that a replayed row has the same key.

Keys stay: a hash covers what it covered in version 0.4, whether a field has a column now or not. Of several equal
rows, the first has the hash that it would have alone. The others have their number (2, 3, ...) in the hash, as if it
were a field of the row. A producer that splits a call over messages sends the number as that field, so that a worker of
version 0.4 makes the same hash of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import MAX_PREC, Context, Decimal
from hashlib import blake2b
from typing import Any

import msgspec

#: The field with a row's number among equal rows without an id. In `defaults`, 1 says that the producer has numbered
#: them; a worker numbers the rows of other messages.
OCCURRENCE = "#occurrence"
_ALL_DIGITS = Context(prec=MAX_PREC)


def hash63(content: bytes) -> int:
    """Return a hash that fits into a bigint and is never negative."""
    return int.from_bytes(blake2b(content, digest_size=8).digest()) >> 1


def content_hashes(
    names: tuple[str, ...], columns: Mapping[str, list[Any]], unknown: Sequence[Mapping[str, Any]], count: int
) -> Iterator[int]:
    """Yield for each row the hash of its stored values in the columns `names`.

    The name `*` means the fields that version 0.4 did not know. `unknown` holds these by row, or is empty if no row
    has any.
    """
    encode = msgspec.json.Encoder(order="deterministic").encode
    contents = zip(*(_hashable(columns[name]) for name in names if name != "*"), strict=True)
    if "*" not in names or not unknown:
        yield from map(hash63, map(encode, contents))
        return
    for content, extra in zip(contents, unknown, strict=True):
        rest = {k: v for k, v in extra.items() if v is not None}
        yield hash63(encode((content, rest) if rest else content))


def _hashable(column: list[Any]) -> list[Any]:
    """Return exact numbers without the zeros at their ends, of which a wider column has more; others as they are."""
    if not isinstance(next((value for value in column if value is not None), None), Decimal):
        return column
    return [None if value is None else f"{value.normalize(_ALL_DIGITS):f}" for value in column]


def number_of(value: Any) -> int | None:
    """Return a row's number among its equals, as a hash counts it: None for the first.

    Raises ValueError for a value that is not a positive integer.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise ValueError("not a positive integer")
    return value if value > 1 else None
