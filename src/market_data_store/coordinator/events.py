"""Workers' events as Flower reads them; what is not an event in Celery's form is ignored.

Anybody can send events who reaches the broker. Celery's receiver takes any value for any field: one heartbeat with a
text for a number makes an error of each of Flower's pages, for as long as Flower runs.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from celery.events.receiver import EventReceiver

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
#: Seconds since 1970, up to the year 9999.
_Moment = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_799)]


class _Event(msgspec.Struct, frozen=True):
    """The fields of which Celery's state or Flower compute something."""

    type: _Name
    hostname: _Name
    timestamp: _Moment
    clock: _Count = 0
    #: In hours; Celery 5.7 sends 0.0, and 5.5 where that is the zone.
    utcoffset: Annotated[float, msgspec.Meta(ge=-24, le=24)] = 0
    pid: _Count | None = None
    freq: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 2.0
    active: _Count | None = None
    processed: _Count | None = None
    loadavg: (
        Annotated[list[Annotated[float, msgspec.Meta(ge=0, lt=1e9)]], msgspec.Meta(min_length=3, max_length=3)] | None
    ) = None
    uuid: _Name | None = None
    name: _Name | None = None
    root_id: _Name | None = None
    parent_id: _Name | None = None
    retries: _Count | None = None
    runtime: Annotated[float, msgspec.Meta(ge=0, lt=1e9)] | None = None


def readable(event: Any) -> dict[str, Any] | None:
    """Return an event with those of its fields that are plain values; None for what is not an event."""
    try:
        found = msgspec.convert(event, _Event)
        if found.type.startswith("task-") and found.uuid is None:
            return None
        known = {name: event[name] for name in _Event.__struct_fields__ if name in event}
        others = msgspec.convert({name: event[name] for name in event.keys() - known.keys()}, dict[_Name, Any])
    except (msgspec.ValidationError, RecursionError):
        return None
    return known | {name: value for name, value in others.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 10_000
    return value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) <= 2**53)


class _Receiver(EventReceiver):
    def _receive(self, body: Any, message: Any, **_: Any) -> None:
        for event in body if isinstance(body, list) else [body]:
            if (found := readable(event)) is not None:
                self.process(*self.event_from_message(found))


def ignore_malformed() -> None:
    """Let this process ignore malformed events; Flower names Celery's class itself, so the class is changed."""
    EventReceiver._receive = _Receiver._receive
