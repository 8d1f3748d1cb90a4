"""Which transport a connection gets: ours for Redis and RabbitMQ, kombu's own for any other broker."""

from __future__ import annotations

import inspect
import logging
from functools import cache
from typing import Any

import kombu
from celery.app.amqp import AMQP
from kombu.transport import pyamqp, redis, virtual
from kombu.utils.imports import symbol_by_name

from market_data_store.config import settings

logger = logging.getLogger(__name__)
#: The release that `redis.channel` and `rabbitmq` were tested with, and what they override or call there.
KOMBU = "5.7."
_INTERNALS = {
    (pyamqp, "Channel.basic_ack"): "(self, delivery_tag, multiple=False, argsig='Lb')",
    (pyamqp, "Channel.basic_reject"): "(self, delivery_tag, requeue, argsig='Lb')",
    (pyamqp, "Channel.message_to_python"): "(self, raw_message)",
    (pyamqp, "Transport.register_with_event_loop"): "(self, connection, loop)",
    (redis, "Channel._brpop_start"): "(self, timeout=None)",
    (redis, "Channel._brpop_read"): "(self, **options)",
    (redis, "Channel._do_restore_message"): "(self, payload, exchange, routing_key, pipe, leftmost=False)",
    (redis, "Channel._flush_brpop_reauth"): "(self)",
    (redis, "Channel._q_for_pri"): "(self, queue, pri)",
    (redis, "Channel.conn_or_acquire"): "(self, client=None)",
    (redis, "MultiChannelPoller._register_BRPOP"): "(self, channel)",
    (redis, "QoS.append"): "(self, message, delivery_tag)",
    (redis, "QoS.ack"): "(self, delivery_tag)",
    (redis, "QoS.restore_unacked"): "(self, client=None)",
    (redis, "SentinelChannel._sentinel_managed_pool"): "(self, asynchronous=False)",
    (redis, "SentinelTransport.register_with_event_loop"): "(self, connection, loop)",
    (redis, "Transport.register_with_event_loop"): "(self, connection, loop)",
    (virtual, "Channel.basic_consume"): "(self, queue, no_ack, callback, consumer_tag, **kwargs)",
    (virtual, "QoS.append"): "(self, message, delivery_tag)",
    (virtual, "QoS.ack"): "(self, delivery_tag)",
    (virtual, "QoS.can_consume_max_estimate"): "(self)",
    (virtual, "QoS.restore_unacked_once"): "(self, stderr=None)",
    (virtual, "Transport._deliver"): "(self, message, queue)",
}
#: By name, so that an unsuited kombu is not subclassed.
_OURS = {
    "kombu.transport.pyamqp:Transport": "market_data_store.transport.rabbitmq:Transport",
    "kombu.transport.pyamqp:SSLTransport": "market_data_store.transport.rabbitmq:SSLTransport",
    "kombu.transport.redis:Transport": "market_data_store.transport.redis.channel:Transport",
    "kombu.transport.redis:SentinelTransport": "market_data_store.transport.redis.channel:SentinelTransport",
}


def unsuited(version: str = kombu.__version__) -> str | None:
    """Why this kombu's transports are not to be replaced; None when they are those that were tested."""
    if not version.startswith(KOMBU):
        return f"kombu {version} is not {KOMBU}x"
    for (module, name), expected in _INTERNALS.items():
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is None or str(inspect.signature(found)) != expected:
            return f"{module.__name__}.{name} is not as it was"
    return None


class Connection(kombu.Connection):
    """A connection whose transport is ours for Redis and RabbitMQ; any other broker's is kombu's."""

    def get_transport_cls(self) -> Any:
        """The class of the transport; decided here, since what a URL or `broker_transport` can say is lost with TLS.

        (kombu 5.7 then forgets what rediss:// implies, and at a failover the class.)
        """
        stock = super().get_transport_cls()
        ours = _OURS.get(f"{stock.__module__}:{stock.__qualname__}")
        return symbol_by_name(ours) if ours and _is_wanted(on_redis=issubclass(stock, redis.Transport)) else stock


@cache
def _is_wanted(*, on_redis: bool) -> bool:
    if on_redis and settings().stock_redis_transport:
        return False
    reason = unsuited()
    if reason and on_redis:
        logger.warning(
            "%s, so Celery's own Redis transport is used: a worker that is killed can lose a message, and small "
            "messages are slower (install kombu %sx, or set MDS_STOCK_REDIS_TRANSPORT=1 to accept it)",
            reason,
            KOMBU,
        )
    return reason is None


class StoreAMQP(AMQP):
    """`Celery(amqp=StoreAMQP)`: the application's connections are `Connection`s."""

    Connection = Connection
