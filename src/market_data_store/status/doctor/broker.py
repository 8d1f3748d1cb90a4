"""Checks of the broker, and of the Redis of REDIS_URL beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from celery import Celery

from market_data_store.config import Settings
from market_data_store.connections.urls import is_redis, without_password
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.protocol import QUEUE
from market_data_store.status.doctor import rabbitmq_server, redis_server
from market_data_store.status.doctor.family import Family
from market_data_store.status.doctor.finding import Finding, error, ok
from market_data_store.status.doctor.rabbitmq_server import RabbitFacts
from market_data_store.status.doctor.redis_server import RedisFacts

NAME, FEEDBACK = "broker", "redis"
_OF_REDIS = {name: getattr(redis_server, name) for name in ("version", "eviction", "persistence", "memory", "clock")}
_OF_RABBITMQ = {name: getattr(rabbitmq_server, name) for name in ("version", "queues", "management", "policy")}


@dataclass(frozen=True)
class Broker:
    """An open broker, and what it says of itself."""

    url: str
    inspector: QueueInspector
    facts: RedisFacts | RabbitFacts


@contextmanager
def _opened(app: Celery, settings: Settings) -> Iterator[Broker]:
    url, management_url = settings.broker_url, settings.rabbitmq_management_url
    with closing(QueueInspector(app, QUEUE, management_url=management_url)) as inspector:
        inspector.waiting()  # raises `BrokerUnavailable` if it does not answer
        facts: RedisFacts | RabbitFacts
        if is_redis(url):
            facts = redis_server.ask(url, is_broker=True)
        else:
            facts = rabbitmq_server.ask(app, inspector, management_url)
        yield Broker(url, inspector, facts)


def broker(app: Celery, settings: Settings, see: Callable[[RedisFacts | RabbitFacts], None]) -> Family[Broker]:
    """Return the checks of BROKER_URL; `see` gets the facts, for checks that need those of several servers."""

    def reachable(part: Broker) -> Iterator[Finding]:
        see(part.facts)
        yield ok(f"{NAME}.reachable", f"{without_password(part.url)} answers")

    checks = _OF_REDIS if is_redis(settings.broker_url) else _OF_RABBITMQ
    return Family(
        NAME,
        lambda: _opened(app, settings),
        "check BROKER_URL, and that the server runs and lets this machine in",
        {
            "reachable": reachable,
            "writable": _writable,
            **{name: partial(_of_facts, check) for name, check in checks.items()},
        },
    )


def _of_facts(check: Callable[[str, RedisFacts | RabbitFacts], Iterable[Finding]], part: Broker) -> Iterable[Finding]:
    return check(NAME, part.facts)


def _writable(part: Broker) -> Iterator[Finding]:
    check = f"{NAME}.writable"
    refusal = part.inspector.refusal()
    if refusal:
        yield error(
            check,
            f"the broker takes no write: {refusal}",
            "see docs/troubleshooting.md, The broker takes no write",
        )
    else:
        yield ok(check, "the broker takes writes")


def feedback(settings: Settings, see: Callable[[RedisFacts], None]) -> Family[RedisFacts]:
    """Return the checks of the Redis of REDIS_URL, for feedback, and for results beside a RabbitMQ."""

    @contextmanager
    def opened() -> Iterator[RedisFacts]:
        yield redis_server.ask(settings.redis_url, is_broker=False)

    def reachable(part: RedisFacts) -> Iterator[Finding]:
        see(part)
        yield ok(f"{FEEDBACK}.reachable", f"{without_password(part.url)} answers")

    return Family(
        FEEDBACK,
        opened,
        "check REDIS_URL, and that the server runs and lets this machine in",
        {
            "reachable": reachable,
            **{name: partial(check, FEEDBACK) for name, check in _OF_REDIS.items() if name != "persistence"},
        },
    )
