"""The store's application with Celery's own transports, for tests that compare them with the store's."""

from celery.app.amqp import AMQP

from market_data_store.app import app

__all__ = ["app"]

app.amqp_cls = AMQP
