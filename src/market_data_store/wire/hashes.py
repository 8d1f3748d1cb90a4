"""Hashes of a row's content, used as key values, so that a replayed row has the same key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec


def hash63(content: bytes) -> int:
    """Return a hash that fits into a bigint and is never negative."""
    return int.from_bytes(blake2b(content, digest_size=8).digest()) >> 1


def content_hashes(
    names: tuple[str, ...], columns: Mapping[str, list[Any]], unknown: Sequence[Mapping[str, Any]], count: int
) -> Iterator[int]:
    """Yield for each row the hash of its stored values in the columns `names`.

    The name `*` means the fields that the dataset does not know. `unknown` holds these by row, or is empty if no row
    has any.
    """
    encode = msgspec.json.Encoder(order="deterministic").encode
    contents = zip(*(columns[name] for name in names if name != "*"), strict=True)
    extras: Sequence[Mapping[str, Any]] = unknown if "*" in names and unknown else [{}] * count
    for content, extra in zip(contents, extras, strict=True):
        rest = {k: v for k, v in extra.items() if v is not None}
        yield hash63(encode((content, rest) if rest else content))
