"""The store's application with orders that make a worker of it fall silent, as lost connections have done."""

from __future__ import annotations

import time
from typing import Any

from celery.worker.control import control_command

from market_data_store.app import app

__all__ = ["app"]


@control_command(name="deafen")
def deafen(state: Any) -> str:
    """Have the worker ask for no message any more; it answers as before."""
    consumer = state.consumer.task_consumer
    if hasattr(consumer.channel, "unacked_key"):
        consumer.channel._brpop_start = lambda *_, **__: None
    else:
        for tag in consumer._active_tags.values():
            consumer.channel.basic_cancel(tag, nowait=True)
    return "deaf"


@control_command(name="hang")
def hang(state: Any) -> None:
    """Have the worker's loop hang."""
    time.sleep(3_600)
