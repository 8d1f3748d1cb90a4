"""Reads and validates the arguments of `store.write` from a message's body as the broker delivered it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from market_data_store.config import settings
from market_data_store.connections.compression import TooLarge, unpacked
from market_data_store.datasets import Dataset, dataset_named
from market_data_store.errors import InvalidMessage, Reason
from market_data_store.protocol import TASK
from market_data_store.wire.arrow import Frame, unpack
from market_data_store.wire.fields import exact_names
from market_data_store.wire.rows import with_digits
from market_data_store.wire.text import read_float
from market_data_store.worker.canvas import followers_in
from market_data_store.worker.envelope import Envelope

#: A JSON list, as text or decoded, or a table.
Rows = bytes | list[Any] | Frame

#: The arguments of the task, in their order.
_NAMES = ("dataset", "rows", "defaults")
#: args, kwargs and embed of Celery's protocol 2. The rows stay text until their dataset is known.
_decode_body = msgspec.json.Decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw], dict[str, Any]]).decode


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one `store.write`."""

    dataset: Dataset
    rows: Rows
    defaults: dict[str, Any]


def parsed(envelope: Envelope) -> tuple[Call, dict[str, Any]]:
    """The call in a message, and what follows it: callbacks, a chain, a chord. Raises `InvalidMessage`."""
    if envelope.unusable:
        raise InvalidMessage(envelope.unusable)
    body = _unpacked(envelope)
    if envelope.columnar:
        return validated_call(*unpack(body)), {}
    args: Sequence[Any]
    try:
        args, kwargs, embed = _decode_body(body)
    except (ValueError, RecursionError):
        args, kwargs, embed = _parsed_by_python(body)
    if len(args) > len(_NAMES):
        number = str(len(args))
        raise InvalidMessage(Reason.of("args: {} given, store.write takes dataset, rows and defaults", number))
    given = _named(args, kwargs)
    for name in given:
        if name not in _NAMES:
            template = "kwargs: {} is unknown; store.write takes dataset, rows and defaults"
            raise InvalidMessage(Reason.of(template, repr(name[:80])))
    for name in ("dataset", "rows"):
        if name not in given:
            raise InvalidMessage(Reason.of("missing; send store.write(dataset, rows, defaults=None)").at(name))
    rows = bytes(given["rows"]) if isinstance(given["rows"], msgspec.Raw) else given["rows"]
    call = validated_call(_argument(given["dataset"]), rows, _argument(given.get("defaults")))
    return _exact(call, given, body), followers_in(embed)


def _named(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(_NAMES, args, strict=False)), **kwargs}


def _exact(call: Call, given: Mapping[str, Any], body: bytes) -> Call:
    """Return the call with all digits of exact numbers, of which Python's parser has made floats."""
    names = exact_names(call.dataset)
    if not names:
        return call
    rows, defaults = call.rows, call.defaults
    if isinstance(rows, list):
        written = _named(*_parsed_by_python(body, str)[:2])
        rows = [with_digits(row, other, names) for row, other in zip(rows, written["rows"], strict=True)]
        defaults = with_digits(defaults, written.get("defaults"), names)
    elif isinstance(given.get("defaults"), msgspec.Raw):
        defaults = with_digits(defaults, json.loads(bytes(given["defaults"]), parse_float=str), names)
    return Call(call.dataset, rows, defaults)


def _unpacked(envelope: Envelope) -> bytes:
    limit = settings().max_message_bytes
    if len(envelope.body) > limit:
        sizes = f"{len(envelope.body):,}", f"{limit:,}"
        raise InvalidMessage(Reason.of("body: {} bytes, at most {} (MDS_MAX_MESSAGE_BYTES)", *sizes))
    if envelope.compression is None:
        return envelope.body
    try:
        return unpacked(envelope.body, envelope.compression)
    except TooLarge:
        template = "body: more than {} bytes when it is unpacked (MDS_MAX_MESSAGE_BYTES)"
        raise InvalidMessage(Reason.of(template, f"{limit:,}")) from None
    except Exception as error:  # noqa: BLE001  # a decoder raises whatever it likes
        raise InvalidMessage(Reason.of("body: cannot be decoded ({kind})", kind=type(error).__name__)) from None


def _parsed_by_python(
    body: bytes, parse_float: Callable[[str], Any] = read_float
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Read a body of protocol 1, or one with NaN or 1e400, which Python's json writes although JSON lacks them."""
    try:
        value = json.loads(body, parse_float=parse_float)
        if isinstance(value, dict) and value.get("task") == TASK:  # protocol 1
            value = value.get("args", []), value.get("kwargs", {}), value
        args, kwargs, embed = value
        if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embed, dict | None)):
            raise ValueError("no arguments")
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidMessage(Reason.of("body: not the JSON of a Celery task ([args, kwargs, embed])")) from error
    return args, kwargs, embed or {}


def _argument(value: Any) -> Any:
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return json.loads(bytes(value))
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(Reason.of("body: dataset or defaults cannot be read")) from error


def validated_call(dataset: Any, rows: Any, defaults: Any) -> Call:
    """The call with these arguments; raises `InvalidMessage`."""
    if not isinstance(rows, bytes | list | Frame):
        raise InvalidMessage(Reason.of("rows: expected a list of objects, got {}", repr(str(rows)[:80])))
    if not isinstance(defaults, Mapping | None):
        raise InvalidMessage(Reason.of("defaults: expected an object, got {}", repr(str(defaults)[:80])))
    return Call(dataset_named(dataset), rows, dict(defaults or {}))
