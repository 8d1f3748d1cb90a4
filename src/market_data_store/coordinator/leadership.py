"""Elects one of several processes as the leader: the holder of a lease in Redis.

When the leader dies, its lease ends after at most `LEASE_S` seconds. The next process that calls `held` takes over.
"""

from __future__ import annotations

import redis
from redis.exceptions import LockError, RedisError
from redis.lock import Lock

#: Seconds after which a lease that is not renewed ends.
LEASE_S = 3.0


class Leadership:
    """A lease in Redis, renewed by each call of `held`.

    While Redis is unreachable, every process leads: an event published twice does less harm than a missing one.
    """

    def __init__(self, url: str, name: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
        self._lock: Lock = self._redis.lock(name, timeout=LEASE_S, blocking=False, thread_local=False)

    def held(self) -> bool:
        """Return whether this process leads now, and renew its lease."""
        try:
            if self._lock.local.token is not None:
                try:
                    return bool(self._lock.reacquire())
                except LockError:  # the lease ran out, and another process may have it
                    self._lock.local.token = None
            return bool(self._lock.acquire())
        except RedisError:
            return True

    def release(self) -> None:
        """Let another process lead at once."""
        try:
            if self._lock.local.token is not None:
                self._lock.release()
        except (LockError, RedisError):
            pass  # the lease runs out
        self._redis.close()
