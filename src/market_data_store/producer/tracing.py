"""A producer's spans: of `write`, and of a message's way to the broker. Does nothing while traces are off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from market_data_store.connections.names import process_name
from market_data_store.producer.messages import Message
from market_data_store.tracing import switch

_UNTRACED: AbstractContextManager[None] = nullcontext()


def begin() -> None:
    """Trace this process if its environment asks for it."""
    switch.begin(process_name())


def written(dataset: str, rows: int) -> AbstractContextManager[None]:
    """Return the span of a call of `write`."""
    spans = switch.spans()
    return _UNTRACED if spans is None else spans.write(dataset, rows)


def sent(message: Message) -> AbstractContextManager[None]:
    """Return the span of a message's way to the broker; Celery's instrumentation puts its trace into the headers."""
    spans = switch.spans()
    return _UNTRACED if spans is None else spans.send(message.dataset, message.rows, message.origins or ())
