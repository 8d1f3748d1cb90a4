"""Bounds of what a message may become in memory, found before it does."""

from __future__ import annotations

import re
from collections.abc import Iterator

from market_data_store.errors import InvalidMessage, Reason

#: The most rows of a message, or one for so many of its bytes: a row with a time and a price has more.
MOST_ROWS = 1_000_000
_LEAST_BYTES = 16
#: A text of JSON, and what ends with so many of them.
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TEXTS = re.compile(_TEXT, re.DOTALL)
_WITH_TEXTS = re.compile(rb'(?:[^"]*+%b){1,10000}+' % _TEXT, re.DOTALL)
#: What is left of JSON without texts and values is its structure.
_NO_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))
_INNERMOST = re.compile(rb"\[,*\]|\{,*\}")
#: So many bytes are looked at at a time: of each replacement in them there is an object.
_WINDOW = 100_000
#: Rows that are nested more deeply are counted too often.
_MOST_LEVELS = 50


def require_few(rows: int, size: int) -> None:
    """Raise `InvalidMessage` if a message of so many bytes has too many rows."""
    limit = max(MOST_ROWS, size // _LEAST_BYTES)
    if rows > limit:
        raise InvalidMessage(Reason.of("rows: {} rows, at most {}; send smaller messages", f"{rows:,}", f"{limit:,}"))


def row_number(text: bytes) -> int:
    """Return how many items a JSON list has, without making them."""
    structure = b"".join(_structures(text))[1:-1]
    for _ in range(_MOST_LEVELS):
        outer = b"".join(
            _INNERMOST.sub(b"", structure[start : start + _WINDOW]) for start in range(0, len(structure), _WINDOW)
        )
        if len(outer) == len(structure):
            break
        structure = outer
    return structure.count(b",") + 1


def _structures(text: bytes) -> Iterator[bytes]:
    start = 0
    while found := _WITH_TEXTS.match(text, start):
        yield _TEXTS.sub(b"", found[0]).translate(None, _NO_STRUCTURE)
        start = found.end()
    yield text[start:].translate(None, _NO_STRUCTURE)
