"""Creates a queue before a message is sent to it, where the user may.

On RabbitMQ that needs the rights to configure and to read the queue. Who sends with `mandatory` needs neither: the
broker says if the queue is missing, and workers create it.
"""

from __future__ import annotations

from typing import Any

from amqp.exceptions import AccessRefused
from celery import Celery


def declare_if_permitted(app: Celery, connection: Any, name: str) -> bool:
    """Create the queue of this name if it is missing; returns False if RabbitMQ refuses that to this user."""
    queue = app.amqp.queues[name]
    if connection.transport.driver_type == "redis":
        queue.bind(connection.default_channel).declare()
        return True
    try:
        with connection.channel() as channel:  # its own: RabbitMQ closes the one that asks in vain
            queue.bind(channel).declare()
    except AccessRefused:
        return False
    return True
