"""Checks of a Redis or Valkey, the broker or the one of REDIS_URL: what it would lose, evict or refuse."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import redis
from redis.exceptions import NoPermissionError, ResponseError

from market_data_store.connections.redis_client import connected
from market_data_store.connections.urls import without_password
from market_data_store.errors import BrokerUnavailable
from market_data_store.status.doctor.clocks import clock_of
from market_data_store.status.doctor.disks import megabytes
from market_data_store.status.doctor.finding import Finding, error, ok, skipped, warning

#: The oldest that has every command the store prefers (BLMOVE), see docs/decisions/own-transports.md.
_OLDEST = (6, 2)
#: The share of `maxmemory` above which a Redis is nearly full.
_NEARLY_FULL = 0.8
_TIMEOUT_S = 3.0
_MAY_NOT = "its user may not use INFO; run this as one who may (`ACL SETUSER ... +info`)"


@dataclass(frozen=True)
class RedisFacts:
    """What INFO, TIME and CONFIG say; `info` is None, and so is `snapshots`, for a user who may not ask."""

    url: str
    #: Whether messages wait in it.
    is_broker: bool
    info: Mapping[str, Any] | None
    #: The server's setting `save`.
    snapshots: str | None
    ahead_s: float | None

    @property
    def variable(self) -> str:
        """The setting that names it."""
        return "BROKER_URL" if self.is_broker else "REDIS_URL"


def ask(url: str, *, is_broker: bool) -> RedisFacts:
    """Ask a server once; raises `BrokerUnavailable`."""
    client = connected(url, timeout_s=_TIMEOUT_S)
    try:
        client.ping()
        info: Any = _if_permitted(client, "INFO")
        saved: Any = _if_permitted(client, "CONFIG", "GET", "save")
        return RedisFacts(url, is_broker, info, _value_of(saved), _ahead_s(client))
    except (redis.RedisError, OSError) as failed:
        raise BrokerUnavailable(f"cannot connect to {without_password(url)}: {failed}") from failed
    finally:
        client.close()


def _if_permitted(client: Any, *command: str) -> Any:
    try:
        return client.execute_command(*command)
    except (NoPermissionError, ResponseError):
        return None


def _value_of(saved: Any) -> str | None:
    if isinstance(saved, dict):  # redis-py's form of RESP3 and RESP2
        saved = [part for pair in saved.items() for part in pair]
    if not saved:
        return None
    value = saved[1]
    return value.decode() if isinstance(value, bytes) else str(value)


def _ahead_s(client: redis.Redis) -> float | None:
    began = time.time()
    answer: Any = _if_permitted(client, "TIME")
    return None if answer is None else answer[0] + answer[1] / 1e6 - (began + time.time()) / 2


def _by_info(
    judge: Callable[[str, RedisFacts, Mapping[str, Any]], Iterator[Finding]],
) -> Callable[[str, RedisFacts], Iterator[Finding]]:
    """Make a check, named after its function, of one that goes by what INFO says."""

    @wraps(judge)
    def judged(family: str, part: RedisFacts) -> Iterator[Finding]:
        check = f"{family}.{judge.__name__}"
        if part.info is None:
            yield skipped(check, _MAY_NOT)
        else:
            yield from judge(check, part, part.info)

    return judged


@_by_info
def version(check: str, part: RedisFacts, info: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge the version."""
    name = str(info.get("server_name", "redis")).capitalize()
    found = str(info.get("valkey_version") or info.get("redis_version", ""))
    parts = tuple(int(number) for number in found.split(".")[:2] if number.isdecimal())
    if parts and parts < _OLDEST:
        yield warning(check, f"{name} is {found}", "the store needs 6.2 or newer for all that it does; upgrade it")
    else:
        yield ok(check, f"{name} {found}")


@_by_info
def eviction(check: str, part: RedisFacts, info: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge what the server does when it is full: it must refuse, not delete messages."""
    policy = str(info.get("maxmemory_policy", "unknown"))
    lost = "messages" if part.is_broker else "feedback and results"
    if policy.startswith("allkeys"):
        judge = error if part.is_broker else warning
        yield judge(
            check,
            f"{part.variable}: maxmemory-policy is {policy}: a full server deletes {lost}",
            "CONFIG SET maxmemory-policy noeviction, and the same in its configuration or plan",
        )
    else:
        yield ok(check, f"maxmemory-policy is {policy}, which deletes no {lost.replace(' and ', ' or ')}")


@_by_info
def persistence(check: str, part: RedisFacts, info: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge whether messages outlive a restart of the server."""
    failed = [name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if info.get(name) == "err"]
    if failed:
        yield error(
            check,
            f"{part.variable}: the server could not save ({', '.join(failed)}: err)",
            "make room on its disk, see its log",
        )
    elif info.get("aof_enabled"):
        yield ok(check, "appendonly is on")
    elif part.snapshots is None:
        yield skipped(check, "appendonly is off, and the user may not ask for the setting `save`")
    elif part.snapshots:
        yield warning(
            check,
            f"{part.variable}: appendonly is off: a crash of the server loses what came since its last snapshot",
            "CONFIG SET appendonly yes, and the same in its configuration",
        )
    else:
        yield error(
            check,
            f"{part.variable}: the server keeps nothing on disk: a restart of it loses every message",
            "CONFIG SET appendonly yes, and the same in its configuration",
        )


@_by_info
def memory(check: str, part: RedisFacts, info: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge how full the server is."""
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    said = f"{megabytes(used)} are used" + (f" of {megabytes(most)}" if most else ", without a limit (maxmemory)")
    if most and used > _NEARLY_FULL * most:
        yield warning(check, f"{part.variable}: {said}", "let workers drain the queues, or raise maxmemory")
    else:
        yield ok(check, said)


def clock(family: str, part: RedisFacts) -> Iterator[Finding]:
    """Compare the clocks."""
    if part.ahead_s is None:
        yield skipped(f"{family}.clock", "the user may not use TIME")
    else:
        yield from clock_of(f"{family}.clock", "the Redis", part.ahead_s)
