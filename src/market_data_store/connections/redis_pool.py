"""The connections to Redis that the threads of a process share, because hosted plans limit their number.

kombu's channels, the inspectors, the feedback and its leadership use one small pool for each server. Only what waits
for messages has its own connection. docs/deploy.md has the numbers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from queue import LifoQueue
from typing import Any

import redis

from market_data_store.connections.names import process_name, shared_connections

#: What is not part of a server's identity: each user of a pool has its own.
_TIMEOUTS = ("socket_timeout", "socket_connect_timeout")
_IDENTITY = ("host", "port", "path", "db", "username", "password", "credential_provider")
#: What waits for a connection of a pool waits at most this many seconds if it has no time-out.
_WAIT_S = 20.0


class _Asked(threading.local):
    """The time-outs of the user that asks a pool for a connection."""

    timeouts: Mapping[str, float | None] = {}


_asked = _Asked()


def _prepared(connection: Any) -> Any:
    """Give a connection the time-outs of who asked for it, whether it is open or not."""
    asked = _asked.timeouts
    if any(getattr(connection, name) != value for name, value in asked.items()):
        for name, value in asked.items():
            setattr(connection, name, value)
        connection.update_current_socket_timeout(-1)
    return connection


class _Named:
    """Opens a connection and names it, where the user may do that: a producer of few rights may not."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, connection: Any) -> None:
        connection.on_connect()
        with suppress(redis.ResponseError):
            connection.send_command("CLIENT", "SETNAME", self._name)
            connection.read_response()


class _Idle(LifoQueue[Any]):
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        connection = super().get(block, _asked.timeouts.get("socket_timeout") or timeout)
        return None if connection is None else _prepared(connection)


class _SharedPool(redis.BlockingConnectionPool):
    def make_connection(self) -> Any:
        return _prepared(super().make_connection())  # type: ignore[no-untyped-call]


class Borrowed:
    """A pool of redis-py's for one user: connections of the process's pool, with time-outs of the user's.

    `disconnect` ends the use; the connections are closed when the last user is gone.
    """

    def __init__(self, pool: _SharedPool, key: object, timeouts: Mapping[str, float | None]) -> None:
        self._pool = pool
        self._key = key
        self._timeouts = timeouts
        self._pid = os.getpid()
        self._is_open = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """A connection, which `release` gives back; raises `redis.ConnectionError` if none is free in time."""
        _asked.timeouts = self._timeouts
        try:
            return self._pool.get_connection()  # type: ignore[no-untyped-call]
        finally:
            _asked.timeouts = {}

    def disconnect(self, inuse_connections: bool = True) -> None:
        """End the use."""
        if self._is_open and self._pid == os.getpid():
            self._is_open = False
            _let_go(self._key)

    close = disconnect


#: By server: the pool, and how many use it.
_pools: dict[object, tuple[_SharedPool, int]] = {}
_lock = threading.Lock()


def borrowed_pool(options: Mapping[str, Any]) -> Borrowed:
    """The process's pool for a server, given the options of redis-py's pools; the first user's options count."""
    options = dict(options)
    timeouts = {name: options.get(name) for name in _TIMEOUTS}
    options.pop("max_connections", None)
    name = options.pop("client_name", None)
    if name:
        options["redis_connect_func"] = _Named(name)
    tls = sorted((name, repr(value)) for name, value in options.items() if name.startswith("ssl"))
    is_tls = issubclass(options.get("connection_class") or redis.Connection, redis.SSLConnection)
    key = (*(_known(name, options) for name in _IDENTITY), is_tls, *tls)
    with _lock:
        pool, users = _pools.get(key) or (None, 0)
        if pool is None:
            make: Any = _SharedPool
            pool = make(max_connections=shared_connections(), timeout=_WAIT_S, queue_class=_Idle, **options)
        _pools[key] = pool, users + 1
    return Borrowed(pool, key, timeouts)


def shared_redis(url: str, *, timeout_s: float) -> redis.Redis:
    """A client with connections of the process's pool, which waits at most this long for any answer."""
    address = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    pool: Any = borrowed_pool({**address, **dict.fromkeys(_TIMEOUTS, timeout_s), "client_name": process_name()})
    client: redis.Redis = redis.Redis(connection_pool=pool)
    client.auto_close_connection_pool = True
    return client


def _known(name: str, options: Mapping[str, Any]) -> object:
    value = options.get(name)
    return int(value or 0) if name == "db" else value or None


def _let_go(key: object) -> None:
    with _lock:
        pool, users = _pools[key]
        if users > 1:
            _pools[key] = pool, users - 1
            return
        del _pools[key]
    pool.disconnect()


def _forget() -> None:
    """In a new process, whose parent goes on with the connections."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_forget)
