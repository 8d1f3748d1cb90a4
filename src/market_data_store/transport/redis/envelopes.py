"""Reads what is in a Redis list: a message with its body, headers and properties, as kombu writes it."""

from __future__ import annotations

from typing import Any

import msgspec
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads


def envelope_of(text: bytes, tag: str | None = None) -> Any:
    """Return a message's text decoded, with the delivery tag by which it is recorded; raises an error if it is none."""
    try:
        envelope = msgspec.json.decode(text)
    except (ValueError, RecursionError):  # Python accepts more as JSON: NaN, half a surrogate pair
        envelope = loads(bytes_to_str(text))
    if not isinstance(envelope["properties"]["delivery_info"], dict):  # to Lua, [] is the same
        raise TypeError("delivery_info is not an object")
    if tag is not None:
        envelope["properties"]["delivery_tag"] = tag
    return envelope
