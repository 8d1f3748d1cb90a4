"""Hashes that stand for a row's content, so that a replay gets the same key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec


def hash63(content: bytes) -> int:
    """A hash that fits a bigint and is never negative."""
    return int.from_bytes(blake2b(content, digest_size=8).digest()) >> 1


def content_hashes(
    names: tuple[str, ...], columns: Mapping[str, list[Any]], unknown: Sequence[Mapping[str, Any]], count: int
) -> Iterator[int]:
    """Of each row, the hash of these columns' stored values; `*` stands for the fields that the dataset does not know.

    `unknown` holds those by row, or is empty where no row has any.
    """
    encode = msgspec.json.Encoder(order="deterministic").encode
    contents = zip(*(columns[name] for name in names if name != "*"), strict=True)
    extras: Sequence[Mapping[str, Any]] = unknown if "*" in names and unknown else [{}] * count
    for content, extra in zip(contents, extras, strict=True):
        rest = {k: v for k, v in extra.items() if v is not None}
        yield hash63(encode((content, rest) if rest else content))
