"""Clients of a Redis that is not used as a broker: of one server, or of the master that Sentinel names."""

from __future__ import annotations

from typing import Any

import redis
import redis.sentinel
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from market_data_store.connections.names import process_name
from market_data_store.connections.redis_pool import shared_redis
from market_data_store.connections.sentinel import Sentinel, sentinel_of

#: Seconds for a sentinel's answer. Another one is asked after them.
_SENTINEL_TIMEOUT_S = 1.0


class _Password(CredentialProvider):
    """The sentinels' password. A transport's options are shown to whoever asks a worker for its settings."""

    def __init__(self, password: str) -> None:
        self._password = password

    def get_credentials(self) -> tuple[str]:
        return (self._password,)

    async def get_credentials_async(self) -> tuple[str]:  # Flower's client is async
        return self.get_credentials()

    def __json__(self) -> str:
        return "********"


class _OneTry(Retry):
    """A sentinel is tried once: redis-py would try one that is away for seconds before it asks the next."""

    def __init__(self) -> None:
        super().__init__(NoBackoff(), 0)

    def __json__(self) -> str:
        return "once"


def connected(url: str, *, timeout_s: float) -> redis.Redis:
    """A client that waits at most this long for a connection, and for an answer."""
    timeouts: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    sentinel = sentinel_of(url)
    if sentinel is None:
        return shared_redis(url, timeout_s=timeout_s)
    options = {
        **timeouts,
        **sentinel.ssl_options,
        "client_name": process_name(),
        "sentinel_kwargs": sentinel_options(sentinel),
    }
    manager: Any = redis.sentinel.Sentinel(sentinel.hosts, **options)  # type: ignore[no-untyped-call]
    client: redis.Redis = manager.master_for(
        sentinel.master, db=sentinel.database, username=sentinel.username, password=sentinel.password
    )
    return client


def sentinel_options(sentinel: Sentinel) -> dict[str, Any]:
    """How to connect to the sentinels themselves; for redis-py, kombu, Celery and Flower."""
    password = {"credential_provider": _Password(sentinel.sentinel_password)} if sentinel.sentinel_password else {}
    timeouts = {"socket_timeout": _SENTINEL_TIMEOUT_S, "socket_connect_timeout": _SENTINEL_TIMEOUT_S}
    return {"retry": _OneTry(), **timeouts, **password, **sentinel.ssl_options}
