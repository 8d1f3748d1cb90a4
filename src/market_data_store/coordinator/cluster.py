"""Whether the broker is a Redis Cluster, which is found out when a process starts."""

from __future__ import annotations

from celery import Celery

from market_data_store.connections.urls import is_redis
from market_data_store.coordinator.queue import QueueInspector, if_answered
from market_data_store.protocol import QUEUE


def refuse_cluster(app: Celery) -> None:
    """Raise `ConfigurationError` if the broker is a Redis Cluster; one that is away is left to whoever needs it."""
    if is_redis(str(app.conf.broker_url)):
        inspector = QueueInspector(app, QUEUE)
        if_answered(inspector.waiting)
        inspector.close()
