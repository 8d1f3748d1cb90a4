"""Reads what a message says of itself, in Celery's protocols 1 and 2: all that the worker sees of it is `Headers`.

Anybody can put anything there. What does not fit raises `Unusable`, with the reason for the dead letter. Headers that
are only shown, or that a worker can do without, are left out if they do not fit. Two are read and not followed: `eta`,
for a store has no reason to wait, and `timelimit`, for the store has its own limits.

Of a body only the fields beside the arguments are read, and only where there is no header `task` (protocol 1).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from kombu.message import Message

from market_data_store.errors import Reason
from market_data_store.protocol import ARROW, JSON, REPLAYS_HEADER, TASK
from market_data_store.worker.tracing import trace_of

#: Maximum length of an id or a name, in characters.
MAX_NAME = 255
#: Maximum length of a text that is only shown, in characters.
_MAX_SHOWN = 1_024
#: A body of protocol 1 that is not strict JSON is read by Python, which takes up to 30 times its size in memory.
_MAX_LENIENT_BYTES = 1 << 20

#: What msgspec raises for a value that does not fit; the latter for half a surrogate pair.
_MISFITS = (msgspec.ValidationError, UnicodeEncodeError)

_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Unusable(Exception):
    """The message cannot be a task; `reason` is its dead letter's."""

    def __init__(self, reason: Reason, *, is_task: bool = False) -> None:
        super().__init__(reason.text)
        self.reason = reason
        #: Whether its sender may wait for a result.
        self.is_task = is_task


class _Sent(msgspec.Struct, frozen=True):
    """The headers that must fit; protocol 1 has the same names in the body."""

    task: _Name
    id: _Name
    root_id: _Name | None = None
    parent_id: _Name | None = None
    group: _Name | None = None
    group_index: _Count | None = None
    retries: _Count | None = None
    replaced_task_nesting: _Count | None = None
    eta: str | None = None
    expires: str | None = None
    compression: _Name | None = None


class _Protocol1(msgspec.Struct, frozen=True):
    """What a body of protocol 1 has beside its arguments, which are skipped."""

    task: Any = None
    id: Any = None
    taskset: Any = None
    retries: Any = None
    eta: Any = None
    expires: Any = None
    ignore_result: Any = None


class Headers(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker knows of a message beside its body; each value has its type and is bounded."""

    id: str
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    retries: int = 0
    replaced_task_nesting: int = 0
    #: How the body is compressed; None if it is not.
    compression: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    ignore_result: bool = False
    #: As the sender shows its arguments, shortened.
    argsrepr: str = ""
    kwargsrepr: str = ""
    #: The header of that name if it is an object, unchecked.
    replays: dict[str, Any] | None = None
    #: Whether the body is that of protocol 1: one object instead of a list.
    is_protocol_1: bool = False
    #: The headers that name its trace, unchecked; None while traces are off.
    trace: dict[str, str] | None = None

    @property
    def lineage(self) -> dict[str, Any] | None:
        """What Celery's tracer passes on to callbacks, chain and group; None if that is only the message's id."""
        if self.group is None and self.parent_id is None and self.root_id in (None, self.id):
            return None
        return {
            "root_id": self.root_id or self.id,
            "parent_id": self.parent_id,
            "group": self.group,
            "group_index": self.group_index,
            "replaced_task_nesting": self.replaced_task_nesting,
        }

    def celerys(self) -> dict[str, Any]:
        """Return the headers as Celery's `Request` reads them."""
        return {
            "task": TASK,
            "id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group": self.group,
            "retries": self.retries,
            "ignore_result": self.ignore_result,
            "argsrepr": self.argsrepr,
            "kwargsrepr": self.kwargsrepr,
        }


def read(message: Message) -> Headers:
    """Return what a message says of itself; raises `Unusable`."""
    sent: Mapping[str, Any] = message.headers
    is_protocol_1 = "task" not in sent
    if is_protocol_1:
        sent = _of_protocol_1(message)
    try:
        found = msgspec.convert(sent, _Sent)
    except _MISFITS:
        raise Unusable(_problem(sent)) from None
    if not (found.id and found.id.isprintable()):
        raise Unusable(_problem(sent))
    if found.task != TASK:
        raise Unusable(Reason.of("task: {} is unknown here; the queue is for 'store.write'", quoted(found.task)))
    _check_time("eta", found.eta)
    expires = _check_time("expires", found.expires)
    if expires is not None and expires.timestamp() < time.time():
        template = "expires: {} was over when the message arrived; replay the letter if the rows are still wanted"
        raise Unusable(Reason.of(template, quoted(found.expires)), is_task=True)
    if message.content_type not in (None, JSON, ARROW):
        template = "content_type: {} is not application/json, nor {arrow}"
        raise Unusable(Reason.of(template, quoted(message.content_type), arrow=ARROW), is_task=True)
    properties = message.properties
    replays = sent.get(REPLAYS_HEADER)
    return Headers(
        id=found.id,
        root_id=found.root_id,
        parent_id=found.parent_id,
        group=found.group,
        group_index=found.group_index,
        retries=found.retries or 0,
        replaced_task_nesting=found.replaced_task_nesting or 0,
        compression=found.compression or None,
        reply_to=name_or_none(properties.get("reply_to")),
        correlation_id=name_or_none(properties.get("correlation_id")),
        ignore_result=sent.get("ignore_result") is True,
        argsrepr=_shown(sent.get("argsrepr")),
        kwargsrepr=_shown(sent.get("kwargsrepr")),
        replays=replays if isinstance(replays, dict) else None,
        is_protocol_1=is_protocol_1,
        trace=trace_of(message.headers),
    )


def name_or_none(value: Any) -> str | None:
    """Return a value of any type if it is a name: a text that is short and printable."""
    return value if isinstance(value, str) and len(value) <= MAX_NAME and value.isprintable() else None


def quoted(value: Any) -> str:
    """Quote a value of any type: its first 80 characters."""
    try:
        text = value[:80] if isinstance(value, str | bytes) else str(value)[:80]
    except (ValueError, RecursionError):  # an integer of 5,000 digits, or lists in lists
        text = type(value).__name__
    return repr(text)


def bytes_of(body: Any) -> bytes:
    """Return a body as it was sent: py-amqp, and Celery's own transport, decode one that is said to be UTF-8."""
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    return bytes(body) if isinstance(body, bytes | bytearray | memoryview) else b""


def id_by_content(body: bytes) -> str:
    """Return the id of a message that was sent without one: each delivery of it has the same."""
    return f"sha256:{sha256(body).hexdigest()}"


def _of_protocol_1(message: Message) -> Mapping[str, Any]:
    content_type = message.content_type
    if content_type not in (None, JSON):
        raise Unusable(Reason.of("body: cannot be decoded ({kind})", kind="ContentDisallowed"))
    body = bytes_of(message.body)
    if message.headers.get("compression"):  # is unpacked in the pool, which finds out what it is
        return {"task": TASK, "id": id_by_content(body), **message.headers}
    try:
        found = _protocol_1_fields(body)
    except Exception as error:  # noqa: BLE001  # a decoder raises whatever it likes
        raise Unusable(Reason.of("body: cannot be decoded ({kind})", kind=type(error).__name__)) from None
    if found is None:
        template = "headers: the message is not a Celery task; send it with send_task('store.write', ...)"
        raise Unusable(Reason.of(template))
    given = {name: value for name, value in msgspec.structs.asdict(found).items() if value is not None}
    # Where there are headers, they win.
    given = {"group": given.pop("taskset", None), **given, **message.headers}
    if not isinstance(given.get("id"), str) or not given["id"]:  # protocol 1 demands none
        given["id"] = id_by_content(body)
    return given


def _protocol_1_fields(body: bytes) -> _Protocol1 | None:
    """Return the fields of a task; None for other JSON. Raises an error of any kind for what is not JSON."""
    try:
        found = _decode_protocol_1(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if isinstance(error, msgspec.ValidationError):  # JSON, but not an object
            return None
        if len(body) > _MAX_LENIENT_BYTES:
            raise
        value = json.loads(body)  # NaN, half a surrogate pair
        if not isinstance(value, dict):
            return None
        found = msgspec.convert({name: value.get(name) for name in _Protocol1.__struct_fields__}, _Protocol1)
    return None if found.task is None else found


_decode_protocol_1 = msgspec.json.Decoder(_Protocol1).decode


def _check_time(name: str, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Unusable(_no_time(name, value), is_task=True) from None


def _no_time(name: str, value: Any) -> Reason:
    return Reason.of("{} is not a time", quoted(value)).at(name)


def _problem(sent: Mapping[str, Any]) -> Reason:
    """What is wrong with headers that do not fit: of the first of them."""
    for name in ("task", "id"):
        value = sent.get(name)
        if not isinstance(value, str) or not value:
            return Reason.of("{} is not a string; send the message with Celery", quoted(value)).at(name)
        if len(value) > MAX_NAME or (name == "id" and not value.isprintable()):
            template = "{} is not a name; send at most {most} printable characters"
            return Reason.of(template, quoted(value), most=MAX_NAME).at(name)
    for field in msgspec.structs.fields(_Sent):
        value = sent.get(field.name)
        try:
            msgspec.convert(value, field.type)
        except _MISFITS:
            if field.name in ("eta", "expires"):
                return _no_time(field.name, value)
            return Reason.of("{} does not fit; send the message with Celery", quoted(value)).at(field.name)
    return Reason.of("headers: cannot be read")


def _shown(value: Any) -> str:
    return value[:_MAX_SHOWN] if isinstance(value, str) else ""
