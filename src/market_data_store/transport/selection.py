"""Which transport a connection gets: ours for Redis and RabbitMQ, kombu's own for any other broker."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import kombu
from celery.app.amqp import AMQP
from kombu.utils.imports import symbol_by_name

from market_data_store.transport.moving import Mover

logger = logging.getLogger(__name__)
#: The release that `redis.channel` and `rabbitmq` were tested with: they override and call internals of it.
KOMBU = "5.7."
#: By name, so that another release's classes are not subclassed.
_OURS = {
    "kombu.transport.pyamqp:Transport": "market_data_store.transport.rabbitmq:Transport",
    "kombu.transport.pyamqp:SSLTransport": "market_data_store.transport.rabbitmq:SSLTransport",
    "kombu.transport.redis:Transport": "market_data_store.transport.redis.channel:Transport",
    "kombu.transport.redis:SentinelTransport": "market_data_store.transport.redis.channel:SentinelTransport",
}
#: What moves messages for a worker, by the module of its channel.
_MOVERS = {
    "market_data_store.transport.redis.channel": "market_data_store.transport.redis.mover:RedisMover",
    "market_data_store.transport.rabbitmq": "market_data_store.transport.rabbitmq_mover:RabbitMQMover",
}


class Connection(kombu.Connection):
    """A connection with our transport for Redis and RabbitMQ, and kombu's for any other broker."""

    def get_transport_cls(self) -> Any:
        """The class of the transport.

        It is chosen here because a choice by URL or `broker_transport` is lost with TLS: kombu 5.7 then forgets what
        rediss:// implies, and at a failover the class.
        """
        stock = super().get_transport_cls()
        ours = _OURS.get(f"{stock.__module__}:{stock.__qualname__}")
        return symbol_by_name(ours) if ours and _is_tested(kombu.__version__) else stock


@cache
def _is_tested(version: str) -> bool:
    if version.startswith(KOMBU):
        return True
    logger.warning(
        "kombu %s is not %sx, so Celery's own transports are used: on Redis a worker that is killed can lose a "
        "message, and small messages are slower; install kombu %sx",
        version,
        KOMBU,
        KOMBU,
    )
    return False


def fallback_of(channel: Any) -> str | None:
    """Return why the worker that consumes over this channel uses Celery's own transport; None if it uses ours."""
    if type(channel).__module__ not in _MOVERS:
        return f"kombu {kombu.__version__} is not {KOMBU}x"
    return None if getattr(channel, "reserves", True) else "Redis refuses EVAL"


def mover_of(app: Any, channel: Any) -> Mover | None:
    """Return what moves messages for the worker that consumes over this channel; None with kombu's own transports."""
    found = _MOVERS.get(type(channel).__module__)
    if found is None or not getattr(channel, "reserves", True):
        return None
    made: Mover = symbol_by_name(found)(app if found.endswith("RabbitMQMover") else channel)
    return made


class StoreAMQP(AMQP):
    """`Celery(amqp=StoreAMQP)`: the application's connections are `Connection`s."""

    Connection = Connection
