"""Which transport a connection gets: ours for Redis and RabbitMQ, kombu's own for any other broker."""

from __future__ import annotations

import logging
from functools import cache, cached_property
from typing import Any

import kombu
from celery.app.amqp import AMQP
from kombu.connection import ConnectionPool, PooledConnection
from kombu.utils.imports import symbol_by_name

from market_data_store.connections.names import process_name
from market_data_store.connections.urls import is_redis
from market_data_store.transport.announcing import Announcer
from market_data_store.transport.moving import Mover

logger = logging.getLogger(__name__)
#: The release that `redis.channel` and `rabbitmq` were tested with: they override and call internals of it.
KOMBU = "5.7."
#: By name, so that another release's classes are not subclassed.
_OURS = {
    "kombu.transport.pyamqp:Transport": "market_data_store.transport.rabbitmq:Transport",
    "kombu.transport.pyamqp:SSLTransport": "market_data_store.transport.rabbitmq:SSLTransport",
    "kombu.transport.redis:Transport": "market_data_store.transport.redis.transports:Transport",
    "kombu.transport.redis:SentinelTransport": "market_data_store.transport.redis.transports:SentinelTransport",
}
#: What moves messages for a worker, by the module of its channel's class or of one of the classes that this extends.
_MOVERS = {
    "market_data_store.transport.redis.channel": "market_data_store.transport.redis.mover:RedisMover",
    "market_data_store.transport.rabbitmq": "market_data_store.transport.rabbitmq_mover:RabbitMQMover",
}


class _WithOurTransport(kombu.Connection):
    def _ensure_connection(self, errback: Any = None, max_retries: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Connect, with a try of each host at least. Each try with Sentinel asks all sentinels."""
        if max_retries is not None and not is_redis(str(self.transport_cls)):
            max_retries = max(max_retries, len(self.alt or [None]) - 1)
        return super()._ensure_connection(errback, max_retries, *args, **kwargs)

    def get_transport_cls(self) -> Any:
        """The class of the transport.

        It is chosen here because a choice by URL or `broker_transport` is lost with TLS: kombu 5.7 then forgets what
        rediss:// implies, and at a failover the class.
        """
        stock = super().get_transport_cls()
        ours = _OURS.get(f"{stock.__module__}:{stock.__qualname__}")
        return symbol_by_name(ours) if ours and _is_tested(kombu.__version__) else stock


class _PooledConnection(_WithOurTransport, PooledConnection):
    pass


class _ConnectionPool(ConnectionPool):
    def new(self) -> Any:
        return _PooledConnection(self, **dict(self.connection._info(resolve=False)))


class Connection(_WithOurTransport):
    """A connection with our transport for Redis and RabbitMQ, and kombu's for any other broker."""

    def Pool(self, limit: int | None = None, **kwargs: Any) -> Any:  # noqa: N802  # kombu's name
        """The application's pool, of such connections."""
        return _ConnectionPool(self, limit, **kwargs)

    def clone(self, **kwargs: Any) -> Any:
        """Another connection like this one; in Flower this one, of whose copy it reads events and leaves this idle."""
        return self if process_name() == "mds-flower" and not kwargs else super().clone(**kwargs)


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
    if _mover_for(channel) is None:
        return f"kombu {kombu.__version__} is not {KOMBU}x"
    return None if getattr(channel, "reserves", True) else "Redis refuses EVAL"


def mover_of(app: Any, channel: Any) -> Mover | None:
    """Return what moves messages for the worker that consumes over this channel; None with kombu's own transports."""
    found = _mover_for(channel)
    if found is None or not getattr(channel, "reserves", True):
        return None
    made: Mover = symbol_by_name(found)(app if found.endswith("RabbitMQMover") else channel)
    return made


def _mover_for(channel: Any) -> str | None:
    return next((_MOVERS[kind.__module__] for kind in type(channel).__mro__ if kind.__module__ in _MOVERS), None)


class StoreAMQP(AMQP):
    """`Celery(amqp=StoreAMQP)`: the application's connections are `Connection`s, and its events need no right."""

    Connection = Connection

    @cached_property
    def _event_dispatcher(self) -> Announcer:
        return Announcer(self.app.events.Dispatcher(enabled=False, buffer_while_offline=False))
