"""Elects one of several processes as the leader: the holder of a lease in Redis.

When the leader dies, its lease ends after at most `LEASE_S` seconds. The next process that calls `held` takes over.
"""

from __future__ import annotations

from redis.exceptions import LockError, RedisError
from redis.lock import Lock

from market_data_store.connections.redis_client import connected

#: Seconds after which a lease that is not renewed ends.
LEASE_S = 3.0


class Leadership:
    """A lease in Redis, renewed by each call of `held`.

    While Redis is unreachable, every process leads: an event published twice does less harm than a missing one.
    """

    def __init__(self, url: str, name: str) -> None:
        self._redis = connected(url, timeout_s=1.0)
        self._name = name
        self._lock: Lock = self._redis.lock(name, timeout=LEASE_S, blocking=False, thread_local=False)

    def held(self) -> bool:
        """Return whether this process leads now, and renew its lease."""
        try:
            if self._lock.local.token is not None:
                try:
                    return bool(self._lock.reacquire())
                except LockError:  # the lease ran out, and another process may have it
                    self._lock.local.token = None
            if self._lock.acquire():
                return True
            self._end_endless()
            return False
        except RedisError:
            return True

    def _end_endless(self) -> None:
        """Let a lease end that nobody of us has taken: it would last for ever, or longer than ours."""
        if not -1 < self._redis.pttl(self._name) <= LEASE_S * 1e3:
            self._redis.pexpire(self._name, int(LEASE_S * 1e3))

    def release(self) -> None:
        """Let another process lead at once."""
        try:
            if self._lock.local.token is not None:
                self._lock.release()
        except (LockError, RedisError):
            pass  # the lease runs out
        self._redis.close()
