"""What a sender may put into each field of a message, and which of it the store has to refuse.

The rules are written down here once more, and not taken from the product: they are what is promised.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from typing import Any

TASK = "store.write"
#: Fields of protocols 1 and 2, of kombu and of the brokers, and the store's own, of which any value does no harm.
FREE = (
    *("lang", "meth", "shadow", "timelimit", "argsrepr", "kwargsrepr", "origin", "stamped_headers", "stamps"),
    *("ignore_result", "utc", "taskset", "chord", "callbacks", "errbacks", "chain", "args", "kwargs", "properties"),
    *("enqueued_at", "turns", "reached", "redelivered", "x-death", "x-delivery-count", "x-first-death-queue"),
    *("replays", "content_type", "delivery_info", "hostname", "is_eager", "called_directly", "headers", "__proto__"),
)
_SIGNATURE = {"task": TASK, "args": ["bars", []], "kwargs": {}, "options": {"queue": TASK}, "immutable": True}
#: Values that any broker can carry.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, 1e308, -1e300, 2**31 - 1, 2**31, 2**63 - 1, -(2**63), "", "x", "\x00", "NaN"),
    *("1m", "é" * 300, "x\ny\x1b[2J", "2020-01-01T00:00:00", "9999-12-31T23:59:59-12:00", "i" * 5_000, "gzip"),
    *("2099-01-01T00:00:00+00:00", "20240101", "2024-W01", "0001-01-01T00:00:00+12:00", "now", "[" * 500),
    *([], {}, [[]], [None, "abc"], {"a": {"b": [1]}}, [1, 2, 3], {"task_id": "x", "ids": [1], "whole": False}),
    *({"task_id": "x", "ids": [1], "whole": True, "signature": "0" * 64}, {"task_id": 1}, _SIGNATURE, [_SIGNATURE]),
    *([1], [{}], {"task": 5}, {"__class__": "x"}, {"": ""}),
)
#: What only JSON can carry, as Python writes it.
ODD_JSON: tuple[Any, ...] = (2**70, 10**400, float("nan"), float("inf"), float("-inf"), "\ud800")
#: What only AMQP's tables can carry.
ODD_AMQP: tuple[Any, ...] = (
    datetime.datetime(2024, 1, 1),
    decimal.Decimal("1.5"),
    {"at": datetime.datetime(1970, 1, 1)},
)


def _is_name(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 255)


def _is_count(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31)


def _is_time(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, str):
        return False
    try:
        datetime.datetime.fromisoformat(value).replace(tzinfo=None)
    except ValueError:
        return False
    return not value.startswith(("9999", "0001"))  # with their offsets no time in UTC


def _is_to_come(value: Any) -> bool:
    return value is None or (_is_time(value) and value.startswith("2099"))


def _is_uncompressed(value: Any) -> bool:
    return value is None or value == ""


#: The fields that must fit, each with what fits; a message with another value becomes a letter whose reason begins so.
STRICT: dict[str, Callable[[Any], bool]] = {
    "root_id": _is_name,
    "parent_id": _is_name,
    "group": _is_name,
    "group_index": _is_count,
    "retries": _is_count,
    "replaced_task_nesting": _is_count,
    "eta": _is_time,
    "expires": _is_to_come,
    "compression": _is_uncompressed,
}
#: Of these, what a body of protocol 1 has under the same name.
STRICT_1 = {name: STRICT[name] for name in ("retries", "eta", "expires")} | {"taskset": _is_name}

#: What is wrong in a row's fields; the letter's reason begins with the field.
_BAD: dict[str, tuple[Any, ...]] = {
    "close": (None, "x", "", [], {}, True, float("nan"), float("inf"), "1e999", 10**400),
    "open": ("1,5", "0x10", [1], {"a": 1}, "NaN"),
    "volume": ("x", [], {}, 2**64, "9" * 30),
    "trade_count": (1.5, "x", 2**63, True, []),
    "ts": (None, "", "x", "2024-02-30T00:00:00Z", [], {}, True, -1, 1e300, "99999-01-01"),
    "interval": (None, "", "   ", "x" * 200, "a\x00"),
    "provider": (None, "", "x" * 5_000, "\x00"),
}
BAD_VALUES = [(name, value, f"{name}:") for name, values in _BAD.items() for value in values]
#: Rows that are none.
NO_ROWS: tuple[Any, ...] = (None, 1, 1.5, "x", "", True, [], [[]], "é" * 100)
#: Fields that no dataset has; what they hold is kept beside the row.
UNKNOWN: tuple[Any, ...] = (
    None,
    0,
    "x",
    "'; DROP TABLE bars_ohlcv; --",
    [],
    {"a": [{}]},
    "\\N\t\n\\.",
    1e300,
    "é" * 200,
)

#: What is not a dataset's name.
_NO_DATASETS: tuple[Any, ...] = ("candles", "", None, 5, [], {}, True, "x" * 5_000, "BARS;")
#: What a call may have for each argument besides the right one, and how the letter's reason begins.
BAD_CALLS: tuple[tuple[str, list[Any], dict[str, Any], str], ...] = (
    *(("dataset", [name, "ROWS"], {}, "dataset:") for name in _NO_DATASETS),
    *(("rows", ["bars", rows], {}, "rows:") for rows in (None, 5, "x", {}, {"a": 1}, True, 1.5)),
    *(("defaults", ["bars", "ROWS", value], {}, "defaults:") for value in (5, "x", [], [1], True, 1.5)),
    *(("defaults", ["bars", "ROWS"], {"defaults": {name: bad}}, f"defaults: {name}:")
      for name, bad in (("ts", "never"), ("interval", "\x00"))),
    *(("kwargs", ["bars", "ROWS"], {name: 1}, "kwargs:") for name in ("table", "", "self", "x" * 500, "é")),
    ("args", ["bars", "ROWS", None, 4], {}, "args:"),
    ("args", ["bars", "ROWS", {}, {}, {}, {}], {}, "args:"),
    ("missing dataset", [], {}, "dataset:"),
    ("missing dataset", [], {"rows": []}, "dataset:"),
    ("missing rows", ["bars"], {}, "rows:"),
    ("missing rows", ["bars"], {"defaults": {}}, "rows:"),
)  # fmt: skip
#: Bodies that are not a call.
NO_CALLS: tuple[bytes, ...] = (
    *(b"", b" ", b"null", b"[]", b"{}", b"5", b'"x"', b"[[], {}]", b"[[], {}, {}, {}]", b"[{}, [], {}]", b"\xff\xfe"),
    *(b"[" * 5_000, b"[" * 100_000, b'{"a":' * 5_000, b"\x00" * 9, b"NaN", b"[NaN]", b"\xef\xbb\xbf[]", b"\x80\x04}."),
    *(b"\xff\xff\xff\xff" * 3, b"'x'", b"[[1,2,3]]", b"[[], {}, []]", b"[[], {}, 5]", b'["a", "b", "c"]'),
)
