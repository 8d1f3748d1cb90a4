"""A message as Flower, logs and `inspect` show it: its dataset and its number of rows, never the rows."""

from __future__ import annotations

import re
from typing import Any

from market_data_store.protocol import is_arrow

#: The text that `StoreClient` sends with a message; its number is exact.
_OURS = re.compile(r"\('\w{1,32}', <(\d{1,10}) rows>\)")
#: The assumed size of a table's row, for a table whose sender does not say how many it has.
_TABLE_ROW_BYTES = 80
#: Finds the dataset if it is the first argument or the first keyword.
_DATASET = re.compile(rb'\s*\[\s*\[\s*(?:\]\s*,\s*\{\s*"dataset"\s*:\s*)?"(\w{1,32})"')


def row_count(argsrepr: Any, body: Any) -> int:
    """Estimate a message's rows without decoding it.

    A table's sender says how many it has. Otherwise there is one object a row, and two more in the message.
    """
    if isinstance(body, bytes) and is_arrow(body):
        said = _OURS.fullmatch(argsrepr) if isinstance(argsrepr, str) else None
        return max(1, int(said[1]) if said else len(body) // _TABLE_ROW_BYTES)
    brace: Any = "{" if isinstance(body, str) else b"{"
    return max(1, body.count(brace) - 2) if isinstance(body, str | bytes) else 1


def summary(argsrepr: Any, kwargsrepr: Any, body: Any, rows: int) -> str:
    """`('bars', <500 rows>)` for a message of `row_count` rows, also if its sender gave all of them as text."""
    if isinstance(argsrepr, str) and _OURS.fullmatch(argsrepr):
        return argsrepr
    if rows > 1 and "'defaults': {" in str(kwargsrepr):  # an object that is not a row
        rows -= 1
    head = body[:256] if isinstance(body, str | bytes) else b""
    found = _DATASET.match(head.encode(errors="replace") if isinstance(head, str) else head)
    return f"({found[1].decode()!r}, <~{rows} rows>)" if found else f"(<~{rows} rows>)"
