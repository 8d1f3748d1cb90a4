"""Sets RabbitMQ up for messages with an ETA: once, at whichever of its hosts answers."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer.delayed_delivery import DelayedDelivery as Stock


class DelayedDelivery(Stock):
    """Celery's step, for the hosts of one broker.

    Celery does it at each host of the URL, one after the other, and tries one that is away for 17 s. Meanwhile it takes
    no message. The hosts are the nodes of one cluster, which share exchanges and queues.
    """

    name = "Store-Delayed-Delivery"

    def _validate_broker_urls(self, broker_urls: Any) -> set[Any]:
        super()._validate_broker_urls(broker_urls)
        return {None}  # the application's, which goes from one host to the next
