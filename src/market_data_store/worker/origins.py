"""From which queue a message was taken, and so which lane it belongs to: whatever is done with it, it stays there."""

from __future__ import annotations

from typing import Any

from market_data_store.protocol import LANES, QUEUE


def origin_of(message: Any) -> str | None:
    """The queue from which the message was taken to run alone; None for one that was received from its lane's queue."""
    origin: str | None = getattr(message, "origin", None)
    return origin


def lane_of(message: Any) -> str:
    """The lane's queue to which the message belongs."""
    queue = origin_of(message) or getattr(message, "queue", None)
    if not isinstance(queue, str):  # Celery's own transport knows only what the sender says
        queue = (message.delivery_info or {}).get("routing_key")
    return next((lane for lane in LANES.values() if queue == lane or str(queue).startswith(f"{lane}.")), QUEUE)


def lanes_of(app: Any) -> list[str]:
    """The queues of the lanes that this worker consumes now, that of live rows first."""
    consumed = app.amqp.queues.consume_from
    return [lane for lane in LANES.values() if lane in consumed]
