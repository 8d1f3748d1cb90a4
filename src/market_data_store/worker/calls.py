"""What a message asks for: the arguments of one `store.write`, checked, from the body as it came from the broker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from market_data_store.config import settings
from market_data_store.datasets import Dataset, dataset_named
from market_data_store.errors import InvalidMessage
from market_data_store.wire.arrow import Frame, unpack
from market_data_store.worker.envelope import Envelope

#: args, kwargs and embed of Celery's protocol 2; the rows stay text until their dataset is known.
_decode_body = msgspec.json.Decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw], dict[str, Any]]).decode


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one `store.write`."""

    dataset: Dataset
    rows: bytes | list[Any] | Frame
    defaults: dict[str, Any]


def parsed(envelope: Envelope) -> tuple[Call, bool]:
    """The call that a message asks for, and whether it asks for nothing besides (callbacks, a chain)."""
    if envelope.unusable:
        raise InvalidMessage(envelope.unusable)
    limit = settings().max_message_bytes
    if len(envelope.body) > limit:
        raise InvalidMessage(f"body: {len(envelope.body):,} bytes, at most {limit:,} (MDS_MAX_MESSAGE_BYTES)")
    if envelope.columnar:
        return checked(*unpack(envelope.body)), True
    args: Sequence[Any]
    try:
        args, kwargs, embed = _decode_body(envelope.body)
    except (ValueError, RecursionError):
        args, kwargs, embed = _parsed_by_python(envelope.body)
    names = ("dataset", "rows", "defaults")
    if len(args) > len(names):
        raise InvalidMessage(f"args: {len(args)} given, store.write takes dataset, rows and defaults")
    given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
    for name in given:
        if name not in names:
            raise InvalidMessage(f"kwargs: {name[:80]!r} is unknown; store.write takes dataset, rows and defaults")
    for name in ("dataset", "rows"):
        if name not in given:
            raise InvalidMessage(f"{name}: missing; send store.write(dataset, rows, defaults=None)")
    rows = bytes(given["rows"]) if isinstance(given["rows"], msgspec.Raw) else given["rows"]
    call = checked(_python(given["dataset"]), rows, _python(given.get("defaults")))
    return call, not any(embed.values())


def _parsed_by_python(body: bytes) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """For a body that holds NaN or 1e400, which Python's json writes and JSON does not know."""
    try:
        args, kwargs, embed = json.loads(body)
        if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embed, dict | None)):
            raise ValueError("no arguments")
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidMessage("body: not the JSON of a Celery task ([args, kwargs, embed])") from error
    return args, kwargs, embed or {}


def _python(value: Any) -> Any:
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return json.loads(bytes(value))
    except (ValueError, RecursionError) as error:
        raise InvalidMessage("body: dataset or defaults cannot be read") from error


def checked(dataset: Any, rows: Any, defaults: Any) -> Call:
    """The call with these arguments; raises `InvalidMessage`."""
    if not isinstance(rows, bytes | list | Frame):
        raise InvalidMessage(f"rows: expected a list of objects, got {str(rows)[:80]!r}")
    if not isinstance(defaults, Mapping | None):
        raise InvalidMessage(f"defaults: expected an object, got {str(defaults)[:80]!r}")
    return Call(dataset_named(dataset), rows, dict(defaults or {}))
