"""A row as JSON text, for dead letters."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec


class Unreadable:
    """A value that JSON or Arrow allows and Python does not, such as an integer of 5,000 digits. No field takes it."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text.decode("utf-8", "replace")


def row_text(row: Any) -> str:
    """The row as JSON text that Postgres's json accepts; NaN and infinities become strings, all else stays."""
    if isinstance(row, msgspec.Raw):
        return bytes(row).decode("utf-8", "replace")
    try:
        return json.dumps(row, allow_nan=False, default=str)
    except ValueError:
        try:
            return json.dumps(_without_nan(row), default=str)
        except RecursionError:
            return json.dumps(json.dumps(row, default=str))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value
